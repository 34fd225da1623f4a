"""The table of a model's variants, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

from compressors.pictures.figures import (
    DEFAULT_PRICE_PER_LANE_HOUR,
    beaten_everywhere,
    best_batch,
    how_timed,
    reference_of,
    speedup,
    usd_per_million,
)
from router.card import VariantCard

__all__ = ["DEFAULT_PRICE_PER_LANE_HOUR", "table"]


def table(cards: Sequence[VariantCard], price_per_lane_hour: float, width: int) -> Table:
    """One row per variant, the reference first, then by cost, dearest first. As many columns as
    `width` characters hold."""
    first = reference_of(cards)
    rest = sorted(
        (card for card in cards if card is not first),
        key=lambda card: -usd_per_million(card, price_per_lane_hour),
    )
    columns = _columns(first, price_per_lane_hour, beaten_everywhere(cards, price_per_lane_hour))
    console = Console(width=1000)
    while True:
        view = Table(
            title=f"{first.model}: {first.task.metric} on {first.task.samples:,} test samples "
            f"from {first.task.clusters:,} sources; one thread of {first.machine.cpu}",
            caption="Brackets: 95 % interval. Δ: difference to the reference on the same samples, "
            "in points. Times: p50 / p99. Faster: than the reference on its best engine, and than "
            "PyTorch without one, alone and in the best batch. USD / M: a million rows in that "
            f"batch, at {price_per_lane_hour:g} USD per lane-hour. Beaten by: no worse in accuracy "
            "or speed, alone and in the best batch, and better beyond what measuring can explain. "
            + how_timed(cards),
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
    reference: VariantCard, price: float, beaten: dict[str, str]
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
        ("beaten by", lambda card: beaten.get(card.variant, "–")),
        ("memory\nMB", lambda card: f"{card.resident_bytes / 1e6:.1f}"),
        ("disk\nMB", lambda card: f"{card.bytes_on_disk / 1e6:.2f}"),
        ("than eager\nbatch 1 / best", faster_than_eager),
        ("kernels", kernels),
    ]
