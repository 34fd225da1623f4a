"""The table of a model's variants, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

from compressors.record import EAGER
from router.card import LatencyPoint, VariantCard

# A quarter of what a small cloud instance charges for two cores: an order of magnitude, to be
# replaced by the operator's own price.
DEFAULT_PRICE_PER_LANE_HOUR = 0.05


def best_batch(card: VariantCard) -> LatencyPoint:
    """The measured batch size with the least time per row."""
    return min(card.latency, key=lambda point: point.p50_ms / point.batch)


def usd_per_million(card: VariantCard, price_per_lane_hour: float) -> float:
    """USD for a million rows on a lane that always runs the best batch size: the least that the
    variant can cost. Its median time counts, because money is a sum over all batches."""
    point = best_batch(card)
    return point.p50_ms / 1e3 / point.batch * price_per_lane_hour / 3600 * 1e6


def speedup(card: VariantCard, reference: VariantCard, batch: int) -> tuple[float, float | None]:
    """How many times as fast as the reference the variant is at `batch`, by medians: against the
    best engine that the reference was measured on, and against PyTorch without any. The second is
    None where that was not measured.

    Eager alone is no honest baseline: an engine is faster without any compression.

    Raises:
        ValueError: one of them was not measured at that batch size.
    """
    own = _p50(card.latency, batch)
    trials = {trial.name: trial.latency for trial in reference.engines}
    eager = trials.pop(EAGER, None)
    floats = [*trials.values()] or [reference.latency]
    return (
        min(_p50(points, batch) for points in floats) / own,
        None if eager is None else _p50(eager, batch) / own,
    )


def _p50(points: Sequence[LatencyPoint], batch: int) -> float:
    for point in points:
        if point.batch == batch:
            return point.p50_ms
    raise ValueError(f"batch {batch} was not measured; there are {[p.batch for p in points]}")


def table(cards: Sequence[VariantCard], price_per_lane_hour: float, width: int) -> Table:
    """One row per variant, the reference first, then by cost, dearest first. As many columns as
    `width` characters hold."""
    first = next(card for card in cards if card.variant == card.reference)
    rest = sorted(
        (card for card in cards if card is not first),
        key=lambda card: -usd_per_million(card, price_per_lane_hour),
    )
    columns = _columns(first, price_per_lane_hour)
    console = Console(width=1000)
    while True:
        view = Table(
            title=f"{first.model}: {first.task.metric} on {first.task.samples:,} test samples "
            f"from {first.task.clusters:,} sources; one thread of {first.machine.cpu}",
            caption="Brackets: 95 % interval. Δ: difference to the reference on the same samples, "
            "in points. Times: p50 / p99. Faster: than the reference on its best engine, and than "
            "PyTorch without one, alone and in the best batch. USD / M: a million rows in that "
            f"batch, at {price_per_lane_hour:g} USD per lane-hour.",
            title_justify="left",
            caption_justify="left",
        )
        for heading, _ in columns:
            justify: Literal["left", "right"] = "left" if heading == "variant" else "right"
            view.add_column(heading, justify=justify, no_wrap=True)
        for card in (first, *rest):
            view.add_row(*(cell(card) for _, cell in columns))
        if len(columns) <= _LEAST_COLUMNS or console.measure(view).maximum <= width:
            return view
        columns.pop()


_LEAST_COLUMNS = 3


def _columns(
    reference: VariantCard, price: float
) -> list[tuple[str, Callable[[VariantCard], str]]]:
    """Headings and cells, what matters most first."""

    def difference(card: VariantCard) -> str:
        paired = card.paired
        if card.variant == card.reference:
            return "reference"
        return f"{100 * paired.value:+.2f} [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]"

    def accuracy(card: VariantCard) -> str:
        found = card.accuracy
        return f"{100 * found.value:.2f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"

    def best(card: VariantCard) -> str:
        point = best_batch(card)
        return f"{point.batch}: {point.p50_ms:.2f} / {point.p99_ms:.2f}"

    def faster(card: VariantCard) -> str:
        pairs = (
            speedup(card, reference, point.batch) for point in (card.latency[0], best_batch(card))
        )
        return " / ".join(f"{than_float:.1f}×" for than_float, _ in pairs)

    def faster_than_eager(card: VariantCard) -> str:
        pairs = (
            speedup(card, reference, point.batch) for point in (card.latency[0], best_batch(card))
        )
        return " / ".join("–" if than is None else f"{than:.1f}×" for _, than in pairs)

    def kernels(card: VariantCard) -> str:
        return " ".join(f"{count} {name}" for name, count in sorted(card.engine.kernels.items()))

    return [
        ("variant", lambda card: card.variant),
        (f"{reference.task.metric} %", accuracy),
        (
            "batch 1\nms",
            lambda c: f"{c.latency[0].p50_ms:.2f} / {c.latency[0].p99_ms:.2f}",
        ),
        ("faster\nbatch 1 / best", faster),
        ("USD / M", lambda card: f"{usd_per_million(card, price):.3g}"),
        ("Δ", difference),
        ("best batch\nms", best),
        ("engine", lambda card: card.engine.name),
        ("memory\nMB", lambda card: f"{card.resident_bytes / 1e6:.1f}"),
        ("disk\nMB", lambda card: f"{card.bytes_on_disk / 1e6:.2f}"),
        ("than eager\nbatch 1 / best", faster_than_eager),
        ("kernels", kernels),
    ]
