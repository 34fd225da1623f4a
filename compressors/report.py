"""The table of a model's variants, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

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


def table(cards: Sequence[VariantCard], price_per_lane_hour: float) -> Table:
    """One row per variant, the reference first, then by time per row, slowest first."""
    first = cards[0]
    cards = sorted(
        cards, key=lambda c: (c.variant != c.reference, -usd_per_million(c, price_per_lane_hour))
    )
    title = (
        f"{first.model}: {first.task.metric} on {first.task.samples:,} test samples "
        f"from {first.task.clusters:,} sources; times on one thread of {first.machine.cpu}"
    )
    view = Table(title=title, title_justify="left", caption_justify="left", pad_edge=False)
    view.caption = (
        "[ ] 95 % interval. Δ: paired difference to the reference, in points. Cost: USD per "
        f"million rows at the best batch and {price_per_lane_hour:g} USD per lane-hour."
    )
    view.add_column("variant", no_wrap=True)
    for heading in (
        f"{first.task.metric} %",
        "Δ",
        "batch 1\np50 / p99 ms",
        "best batch\np50 / p99 ms",
        "faster",
        "USD / M",
        "memory\nMB",
        "disk\nMB",
        "kernels",
    ):
        view.add_column(heading, justify="right", no_wrap=True)
    for card in cards:
        view.add_row(*_row(card, cards[0], price_per_lane_hour))
    return view


def _row(card: VariantCard, reference: VariantCard, price: float) -> tuple[str, ...]:
    one, best, accuracy, paired = card.latency[0], best_batch(card), card.accuracy, card.paired
    drop = f"{paired.value:+.2%} [{paired.low:+.2%}, {paired.high:+.2%}]".replace("%", "")
    cost = usd_per_million(card, price)
    return (
        card.variant,
        f"{accuracy.value:.2%} [{accuracy.low:.1%}, {accuracy.high:.1%}]".replace("%", ""),
        "reference" if card.variant == card.reference else drop,
        f"{one.p50_ms:.2f} / {one.p99_ms:.2f}",
        f"{best.batch}: {best.p50_ms:.2f} / {best.p99_ms:.2f}",
        f"{usd_per_million(reference, price) / cost:.1f}×",
        f"{cost:.3g}",
        f"{card.resident_bytes / 1e6:.1f}",
        f"{card.bytes_on_disk / 1e6:.2f}",
        " ".join(f"{count} {name}" for name, count in sorted(card.engine.kernels.items())),
    )
