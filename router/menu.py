"""The menu: the variants of one model, with what routing needs of their cards looked up once.

Everything that can be worked out when a card is loaded is worked out here, so that a decision is
a few comparisons for each variant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from router.card import LatencyPoint, VariantCard
from router.errors import NotReady, UnknownVariant

Percentile = Literal[50, 95, 99]

REFERENCE_ALIAS = "reference"

SECONDS_PER_HOUR = 3600.0

# A batch is as large as makes a row take at most this much longer than in the best batch: what a
# larger one would still save is less than what is lost while nothing more urgent can start.
EFFICIENT = 1.01
# Where not everybody can be served, a batch that takes longer than that a row serves too few.
DECENT = 1.1


# Compared by identity: a decision looks offers and menus up, and hashing their tables would cost
# more than the decision.
@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """One variant, as routing sees it.

    Attributes:
        promised_ms: time of a batch at the promised percentile, by rows; index 0 is 0.
        typical_ms: the same at the median.
        accuracy, accuracy_low, accuracy_high: the card's figure and its 95 % interval.
        share_low: the least share of the reference's accuracy that it is shown to keep: the lower
            end of the paired difference's interval, as a share.
        usd_per_million_lane_ms: USD per million requests that each use one lane for one ms.
        build: the digest of the build that it speaks for; another build has an offer of its own.
        efficient_rows: rows of the smallest batch that is nearly as quick a row as the best.
        row_ms: lane time of a row in such a batch, at the median.
        decent_rows: rows of the smallest batch that is not much slower a row than the best.
    """

    name: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    share_low: float
    promised_ms: tuple[float, ...]
    typical_ms: tuple[float, ...]
    usd_per_million_lane_ms: float
    build: str = ""
    efficient_rows: int = field(init=False)
    row_ms: float = field(init=False)
    decent_rows: int = field(init=False)

    def __post_init__(self) -> None:
        times = self.typical_ms
        least = min([times[rows] / rows for rows in range(1, len(times))])
        rows = next(n for n in range(1, len(times)) if times[n] <= least * n * EFFICIENT)
        object.__setattr__(self, "efficient_rows", rows)
        object.__setattr__(self, "row_ms", times[rows] / rows)
        decent = next(n for n in range(1, len(times)) if times[n] <= least * n * DECENT)
        object.__setattr__(self, "decent_rows", decent)

    @property
    def max_batch(self) -> int:
        return len(self.typical_ms) - 1

    def cost_usd_per_million(self, rows: int) -> float:
        """The quote: what a million requests of `rows` rows cost when each runs alone.

        Riding in a batch makes it cheaper, never dearer, so a cap that the quote meets holds.
        """
        return batch_ms(self.typical_ms, rows) * self.usd_per_million_lane_ms


@dataclass(frozen=True, slots=True, eq=False)
class Menu:
    """The variants of one model, most accurate first; names break ties.

    Attributes:
        not_worse: `not_worse[best][variant]` is the lower end of the paired 95 % interval of
            variant minus best, on the test samples of both; absent where they were not measured
            on the same samples.
        withheld: variants that answer no request unless it names them: canaries.
        aliases: further names of variants, beside `reference`.
        absent: why each variant that the operator took off the menu is.
        broken: why each variant that cannot be served as it lies in the store cannot.
        kinds: what `router.choices` has worked out for this menu, and dies with it.
    """

    model: str
    reference: str
    offers: tuple[Offer, ...]
    not_worse: Mapping[str, Mapping[str, float]]
    by_name: Mapping[str, Offer]
    withheld: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    kinds: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def resolve(self, name: str) -> Offer:
        """The offer called `name`, which may be an alias.

        An alias stays one where a variant of the same name comes.

        Raises:
            UnknownVariant: there is none, and the message lists those there are; or the operator
                took it off the menu: it is no fault, and asking again does not help.
            NotReady: it is in the store, but not whole, or not what it says it is.
        """
        named = self.reference if name == REFERENCE_ALIAS else self.aliases.get(name, name)
        offer = self.by_name.get(named)
        if offer is not None:
            return offer
        if named in self.broken:
            raise NotReady(f"{self.model}/{named} is failed: {self.broken[named]}")
        if named in self.absent:
            raise UnknownVariant(f"{self.model} does not serve {named!r}: {self.absent[named]}")
        known = ", ".join((*sorted(self.by_name), *sorted(self.aliases), REFERENCE_ALIAS))
        raise UnknownVariant(f"{self.model} has no variant {name!r}; there are {known}")

    def gap_low(self, variant: Offer, best: Offer) -> float:
        """The least that `variant` may differ from `best` in accuracy, with 95 % confidence.

        Without paired scores the two intervals' ends are compared, which proves less.
        """
        if variant is best:
            return 0.0
        low = self.not_worse.get(best.name, {}).get(variant.name)
        return variant.accuracy_low - best.accuracy_high if low is None else low


def menu(
    cards: Iterable[VariantCard],
    *,
    percentile: Percentile,
    usd_per_lane_hour: float,
    max_batch: int | None = None,
    not_worse: Mapping[str, Mapping[str, float]] | None = None,
) -> Menu:
    """The menu of one model's cards.

    Args:
        max_batch: rows of a batch, at most, where that is fewer than the cards measured: what
            would have been one batch is then several, and takes as long.

    Raises:
        ValueError: no cards, or cards of several models or references.
    """
    cards = list(cards)
    models = {(card.model, card.reference) for card in cards}
    if len(models) != 1:
        raise ValueError(
            f"expected the cards of one model with one reference, got {sorted(models)}"
        )
    ((model, reference),) = models
    offers = [
        offer(card, percentile=percentile, usd_per_lane_hour=usd_per_lane_hour, max_batch=max_batch)
        for card in cards
    ]
    return assemble(model, reference, offers, not_worse or {})


def assemble(
    model: str,
    reference: str,
    offers: Iterable[Offer],
    not_worse: Mapping[str, Mapping[str, float]],
    **more: Any,
) -> Menu:
    """The menu of these offers; `more` are further members of it.

    An offer that was on another menu may be on this one as well: whoever queued for it then can be
    answered together with whoever asks now.
    """
    ordered = sorted(offers, key=lambda offer: (-offer.accuracy, offer.name))
    by_name = {offer.name: offer for offer in ordered}
    return Menu(model, reference, tuple(ordered), not_worse, by_name, **more)


def batch_ms(table: tuple[float, ...], rows: int) -> float:
    """Time of `rows` rows by a table by rows; more rows than it holds run in several batches."""
    if rows < len(table):
        return table[rows]
    largest = len(table) - 1
    full, rest = divmod(rows, largest)
    return full * table[largest] + (table[rest] if rest else 0.0)


def by_rows(points: tuple[LatencyPoint, ...], percentile: Percentile) -> tuple[float, ...]:
    """Time in ms by rows from 1 to the largest batch measured, straight lines between points.

    A time never falls as rows rise: where a measurement says so it is noise, and a scheduler that
    believed it would pad its batches.
    """
    return interpolated([(point.batch, getattr(point, f"p{percentile}_ms")) for point in points])


def interpolated(known: Sequence[tuple[int, float]]) -> tuple[float, ...]:
    """As `by_rows`, of (batch, ms), from batch 1 on, ascending."""
    table = [0.0]  # no rows take no time
    (low_batch, low_ms), *rest = known
    table.append(low_ms)
    for batch, ms in rest:
        ms = max(ms, low_ms)
        step = (ms - low_ms) / (batch - low_batch)
        table.extend(low_ms + step * (rows - low_batch) for rows in range(low_batch + 1, batch))
        table.append(ms)
        low_batch, low_ms = batch, ms
    return tuple(table)


def offer(
    card: VariantCard,
    *,
    percentile: Percentile,
    usd_per_lane_hour: float,
    max_batch: int | None = None,
    build: str = "",
) -> Offer:
    """One card as routing sees it.

    Args:
        max_batch: as `menu`.
        build: the digest of the build whose card it is.
    """
    end = None if max_batch is None else max_batch + 1
    # Paired: the reference's own accuracy on these samples is this card's less the difference.
    reference = card.accuracy.value - card.paired.value
    low = 0.0 if card.variant == card.reference else card.paired.low
    return Offer(
        name=card.variant,
        accuracy=card.accuracy.value,
        accuracy_low=card.accuracy.low,
        accuracy_high=card.accuracy.high,
        share_low=1.0 + low / reference if reference > 0 else 0.0,
        promised_ms=by_rows(card.latency, percentile)[:end],
        typical_ms=by_rows(card.latency, 50)[:end],
        usd_per_million_lane_ms=usd_per_lane_hour / SECONDS_PER_HOUR / 1000 * 1_000_000,
        build=build,
    )
