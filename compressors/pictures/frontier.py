"""The picture of a model's frontier: accuracy against latency, and against cost."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from compressors.errors import NotSupported
from compressors.pictures.figures import best_batch, usd_per_million
from router.card import VariantCard

FILE = "frontier.png"

_INK, _FAINT, _FRONT, _BEATEN = "#1f2933", "#cbd2d9", "#0b7285", "#9aa5b1"
# Where a label may stand, in points from its marker: near before far, right before left.
_PLACES = [
    (x * distance, y * distance)
    for distance in (8, 14, 22, 32, 44)
    for x, y in ((1, 0.6), (1, -0.6), (-1, 0.6), (-1, -0.6), (0, 1.2), (0, -1.2), (1, 0), (-1, 0))
]


def draw(cards: Sequence[VariantCard], price_per_lane_hour: float) -> bytes:
    """A PNG: one point a variant, with the 95 % interval of its accuracy. The line joins the
    variants that no other beats in both what is drawn across and accuracy.

    Raises:
        NotSupported: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotSupported(
            "the picture needs matplotlib: pip install 'gearshift[compress]'"
        ) from error

    first = cards[0]
    figure = Figure(figsize=(12, 5.4), dpi=150, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    figure.suptitle(
        f"{first.model}: what each variant gives and takes", x=0.01, ha="left", color=_INK,
        fontsize=14, fontweight="bold",
    )  # fmt: skip
    panels = (
        (left, [card.latency[0].p50_ms for card in cards], "Latency of one row, p50, ms"),
        (
            right,
            [usd_per_million(card, price_per_lane_hour) for card in cards],
            f"Cost of a million rows at the best batch, USD at {price_per_lane_hour:g} a lane-hour",
        ),
    )
    for axes, across, title in panels:
        _panel(axes, cards, across, title)
    left.set_ylabel(
        f"{first.task.metric.capitalize()} on {first.task.samples:,} test samples, %", color=_INK
    )
    # Labels go where there is room, which is known once everything else has its place.
    canvas.draw()
    for axes, across, _ in panels:
        _label(axes, cards, across, canvas.get_renderer())
    figure.supxlabel(
        f"Bars: 95 % interval. Line: variants that no other beats in both. "
        f"One thread of {first.machine.cpu}, batch of the right panel: "
        + ", ".join(sorted({str(best_batch(card).batch) for card in cards}, key=int)),
        fontsize=8, color="#616e7c", x=0.01, ha="left",
    )  # fmt: skip
    content = io.BytesIO()
    canvas.print_png(content)
    return content.getvalue()


def front(across: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """Indices of the points that no other beats in both (less across, more accurate), by across."""
    chosen: list[int] = []
    for index in sorted(range(len(across)), key=lambda i: (across[i], -accuracy[i])):
        if not chosen or accuracy[index] > accuracy[chosen[-1]]:
            chosen.append(index)
    return chosen


def _panel(axes: Any, cards: Sequence[VariantCard], across: list[float], title: str) -> None:
    accuracy = [100 * card.accuracy.value for card in cards]
    best = front(across, accuracy)
    axes.plot(
        [across[i] for i in best], [accuracy[i] for i in best], color=_FRONT, alpha=0.45, zorder=1
    )
    for index, card in enumerate(cards):
        color = _FRONT if index in best else _BEATEN
        low, high = 100 * card.accuracy.low, 100 * card.accuracy.high
        axes.errorbar(
            across[index], accuracy[index],
            yerr=[[accuracy[index] - low], [high - accuracy[index]]],
            fmt="o", markersize=7, color=color, elinewidth=1, capsize=3, zorder=2,
        )  # fmt: skip
    axes.set_xlabel(title, color=_INK)
    if min(across) > 0:  # a price of zero makes every cost zero
        axes.set_xscale("log")
        # Half a factor of room on both sides, so that labels stay inside.
        axes.set_xlim(min(across) / 1.5, max(across) * 1.6)
        axes.set_xticks(ticks(min(across), max(across)))
        axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color=_FAINT, alpha=0.5, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def ticks(low: float, high: float) -> list[float]:
    """Round values, more to the decade where the range is short."""
    digits = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 7)
    steps = [digit * 10.0**power for power in range(-9, 9) for digit in digits]
    return [step for step in steps if low / 1.5 <= step <= high * 1.6]


def _label(axes: Any, cards: Sequence[VariantCard], across: list[float], renderer: Any) -> None:
    from matplotlib.transforms import Bbox

    points = axes.transData.transform(
        [(x, 100 * card.accuracy.value) for x, card in zip(across, cards, strict=True)]
    )
    radius = 6 * axes.figure.dpi / 72
    taken = [Bbox([point - radius, point + radius]) for point in points]
    # From the most crowded place outwards there is less and less choice: begin at the top.
    for index in sorted(range(len(cards)), key=lambda i: -points[i][1]):
        note = axes.annotate(
            cards[index].variant, (across[index], 100 * cards[index].accuracy.value),
            xytext=_PLACES[0],
            textcoords="offset points", fontsize=9, color=_INK, va="center", zorder=3,
        )  # fmt: skip
        note.set_path_effects(_halo())
        frame, best = axes.get_window_extent(renderer), (float("inf"), _PLACES[0])
        for place in _PLACES:
            box = _at(note, place, renderer)
            inside = frame.containsx(box.x0) and frame.containsx(box.x1)
            inside = inside and frame.containsy(box.y0) and frame.containsy(box.y1)
            clashes = sum(box.overlaps(other) for other in taken) + (0 if inside else 2)
            best = min(best, (clashes, place), key=lambda pair: pair[0])
            if not clashes:
                break
        taken.append(_at(note, best[1], renderer))


def _at(note: Any, place: tuple[float, float], renderer: Any) -> Any:
    note.set_position(place)
    note.set_horizontalalignment("left" if place[0] > 0 else "right" if place[0] < 0 else "center")
    return note.get_window_extent(renderer)


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]
