"""What a model's variants are compared by, read off their cards, and who beats whom. Pure.

A machine is not as fast today as it was yesterday. So times of two cards are not compared as they
stand: each variant's are first brought to the run in which the reference was measured, by what the
reference took when it was timed in turn with that variant (`in_run_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compressors.record import EAGER
from compressors.search.frontier import Point, beaten_by
from router.card import LatencyPoint, VariantCard

# A quarter of what a small cloud instance charges for two cores: an order of magnitude, to be
# replaced by the operator's own price.
DEFAULT_PRICE_PER_LANE_HOUR = 0.05

# Memory is measured once, and the same variant measured again differs by about this much.
_MEMORY_SPREAD_BYTES = 500_000


@dataclass(frozen=True)
class Measure:
    """One figure that is to be small.

    Attributes:
        name: of the measure, one word.
        title: what a person reads, with its unit.
        value: of a card.
        spread: two that differ by less do not differ.
    """

    name: str
    title: str
    value: Callable[[VariantCard], float]
    spread: Callable[[VariantCard], float]


def measures(price_per_lane_hour: float) -> tuple[Measure, ...]:
    """Everything that accuracy is set against."""

    def cost_spread(card: VariantCard) -> float:
        return _usd(best_batch(card).spread_ms, best_batch(card), price_per_lane_hour)

    return (
        Measure(
            "latency",
            "Latency of one row, p50, ms",
            lambda card: card.latency[0].p50_ms,
            lambda card: card.latency[0].spread_ms,
        ),
        Measure(
            "cost",
            f"Cost of a million rows at the best batch, USD at {price_per_lane_hour:g} a lane-hour",
            lambda card: usd_per_million(card, price_per_lane_hour),
            cost_spread,
        ),
        Measure("size", "Size on disk, MB", lambda card: card.bytes_on_disk / 1e6, lambda _: 0.0),
        Measure(
            "memory",
            "Memory, MB",
            lambda card: card.resident_bytes / 1e6,
            lambda _: _MEMORY_SPREAD_BYTES / 1e6,
        ),
    )


def best_batch(card: VariantCard) -> LatencyPoint:
    """The measured batch size with the least time per row."""
    return min(card.latency, key=lambda point: point.p50_ms / point.batch)


def usd_per_million(card: VariantCard, price_per_lane_hour: float) -> float:
    """USD for a million rows on a lane that always runs the best batch size: the least that the
    variant can cost. Its median time counts, because money is a sum over all batches."""
    point = best_batch(card)
    return _usd(point.p50_ms, point, price_per_lane_hour)


def in_run_of(reference: VariantCard, card: VariantCard) -> VariantCard:
    """The card as if it had been measured in the reference's own run: every time is multiplied by
    what the reference took there over what it took in turn with this variant, at that batch size.
    A card without a yardstick stays as it is.

    Raises:
        ValueError: the reference was not measured at one of its batch sizes.
    """
    if not card.yardstick:
        return card

    def scaled(point: LatencyPoint) -> LatencyPoint:
        scale = _p50(reference.latency, point.batch) / _p50(card.yardstick, point.batch)
        times = ("p50_ms", "p95_ms", "p99_ms", "spread_ms")
        return point.model_copy(update={name: getattr(point, name) * scale for name in times})

    return card.model_copy(update={"latency": tuple(scaled(point) for point in card.latency)})


def how_timed(cards: Sequence[VariantCard]) -> str:
    """What "faster" and "beaten" rest on, in a sentence for a caption."""
    rest = [card for card in cards if card.variant != card.reference]
    apart = [card.variant for card in rest if not card.yardstick]
    told = "Faster, beaten: by the reference timed in turn with each variant"
    if not apart:
        return f"{told}."
    names = "every variant" if len(apart) == len(rest) else ", ".join(apart)
    return f"{told}; for {names}, which has no such times, by the reference's run at another time."


def speedup(card: VariantCard, reference: VariantCard, batch: int) -> tuple[float, float | None]:
    """How many times as fast as the reference the variant is at `batch`, by medians: against the
    best engine that the reference was measured on, and against PyTorch without any. The second is
    None where that was not measured.

    Eager alone is no honest baseline: an engine is faster without any compression. The reference's
    engines are compared with one another in its own run, and the variant with the reference in the
    variant's (`in_run_of`): both ratios are of times taken in turn.

    Raises:
        ValueError: one of them was not measured at that batch size.
    """
    own = _p50(in_run_of(reference, card).latency, batch)
    trials = {trial.name: trial.latency for trial in reference.engines}
    eager = trials.pop(EAGER, None)
    floats = [*trials.values()] or [reference.latency]
    return (
        min(_p50(points, batch) for points in floats) / own,
        None if eager is None else _p50(eager, batch) / own,
    )


def reference_of(cards: Sequence[VariantCard]) -> VariantCard:
    """The card that the others are compared with.

    Raises:
        ValueError: it is not among them.
    """
    for card in cards:
        if card.variant == card.reference:
            return card
    raise ValueError(f"no reference among {[card.variant for card in cards]}")


def beaten(cards: Sequence[VariantCard], measure: Measure) -> dict[str, str]:
    """By variant, the most accurate one that beats it in accuracy and `measure` beyond what
    measuring can explain; those that none beats are absent.

    The rule is `compressors.search.frontier.dominates`: better in one by more than the spread (of
    accuracy: the 95 % intervals of the paired differences do not meet), and not worse in the other.
    The reference may be beaten as well. Times are those of the reference's run (`in_run_of`) where
    it is among the cards.
    """
    first = next((card for card in cards if card.variant == card.reference), None)

    def point(card: VariantCard) -> Point:
        found = card.paired
        drops = (-found.value, -found.high, -found.low)
        # The reference does not differ from itself, whatever an interval for small samples says.
        exact = (0.0, 0.0, 0.0) if card.variant == card.reference else drops
        return Point(card.variant, measure.value(card), measure.spread(card), *exact)

    points = [point(card if first is None else in_run_of(first, card)) for card in cards]
    found = ((point.name, beaten_by(point, points)) for point in points)
    return {name: by.name for name, by in found if by is not None}


def beaten_everywhere(cards: Sequence[VariantCard], price_per_lane_hour: float) -> dict[str, str]:
    """By variant, who beats it in latency and in cost: one name where one does both, else both.
    Variants that are on the frontier of either are absent: somebody may want them."""
    latency, cost, *_ = measures(price_per_lane_hour)
    slower, dearer = beaten(cards, latency), beaten(cards, cost)
    return {
        name: " and ".join(dict.fromkeys((slower[name], dearer[name])))
        for name in slower
        if name in dearer
    }


def _usd(ms: float, point: LatencyPoint, price_per_lane_hour: float) -> float:
    return ms / 1e3 / point.batch * price_per_lane_hour / 3600 * 1e6


def _p50(points: Sequence[LatencyPoint], batch: int) -> float:
    for point in points:
        if point.batch == batch:
            return point.p50_ms
    raise ValueError(f"batch {batch} was not measured; there are {[p.batch for p in points]}")
