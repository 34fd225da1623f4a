"""A scatter plot as SVG that keeps its text at one size: places are shares of whatever width there
is, offsets are pixels. Labels are laid out twice, for a wide screen and for a narrow one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from compressors.pictures.figures import Measure
from compressors.pictures.frontier import front, ticks
from router.card import VariantCard

# Pixels of the drawing that labels are laid out for, and how many ticks there is room for.
_SCREENS = (("wide", 1000.0, 350.0, 9), ("narrow", 280.0, 270.0, 4))
_CHARACTER, _LINE, _RADIUS = 7.4, 15.0, 9.0
# Where a label may stand, in pixels from its point: near before far, and below on the right first,
# where the line does not go.
_PLACES = [
    (x * distance, y * distance)
    for distance in (11, 17, 26, 38)
    for x, y in ((1, 1.1), (-1, -1.1), (1, 0), (-1, 0), (1, -1.1), (-1, 1.1))
]


class _Axis(NamedTuple):
    """From a figure to a share of the drawing, 0 to 1, and the figures to write along it."""

    place: Callable[[float], float]
    ticks: Sequence[float]


def scatter(
    cards: Sequence[VariantCard],
    measure: Measure,
    beaten: Mapping[str, str],
    tip: Callable[[VariantCard], str],
) -> str:
    """Accuracy in percent over `measure`, one point a card with its 95 % interval; those that are
    `beaten` are marked so. `tip` says what is shown of a point; its first line is a heading."""
    across = _across([measure.value(card) for card in cards])
    up = _up([100 * end for card in cards for end in (card.accuracy.low, card.accuracy.high)])
    xs = [across.place(measure.value(card)) for card in cards]
    ys = [1 - up.place(100 * card.accuracy.value) for card in cards]
    ordered = sorted(range(len(cards)), key=lambda index: xs[index])
    parts = [*_grid(across, up), *_line(cards, beaten, xs, ys)]
    parts += [
        _point(cards[i], xs[i], ys[i], up, cards[i].variant in beaten, tip(cards[i]))
        for i in ordered
    ]
    for screen, width, height, _ in _SCREENS:
        parts += _labels(cards, beaten, xs, ys, up, screen, (width, height))
    title = escape(f"{cards[0].task.metric} in percent over {measure.title}")
    return f'<svg role="group" aria-label="{title}">{"".join(parts)}</svg>'


def digits(value: float) -> str:
    """Three significant digits, and never fewer than stand before the point."""
    if value == 0:
        return "0"
    after = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.2e}" if after > 7 else f"{value:,.{max(0, after)}f}"


def _across(values: Sequence[float]) -> _Axis:
    low, high = min(values), max(values)
    if low <= 0:  # a price of zero makes every cost zero
        top = high or 1.0
        return _Axis(lambda value: 0.05 + 0.9 * value / top, [0.0, top])
    begin, end = math.log(low / 1.15), math.log(high * 1.3)
    chosen = [tick for tick in ticks(low, high) if low / 1.15 <= tick <= high * 1.3]
    return _Axis(lambda value: (math.log(value) - begin) / (end - begin), chosen)


def _up(values: Sequence[float]) -> _Axis:
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 1.0
    low, high = low - room, min(100 + room, high + room)
    rough = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * digit for digit in (1, 2, 5, 10) if unit * digit >= rough)
    first = math.ceil(low / step)
    chosen = [step * n for n in range(first, first + 12) if step * n <= min(high, 100)]
    return _Axis(lambda value: (value - low) / (high - low), chosen)


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for tick in up.ticks:
        y = _percent(1 - up.place(tick))
        parts.append(
            f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            f'<text x="-8" y="{y}" dy="4" text-anchor="end">{tick:g}</text>'
        )
    fewer = {screen: max(1, -(-len(across.ticks) // most)) for screen, _, _, most in _SCREENS}
    for index, tick in enumerate(across.ticks):
        x = _percent(across.place(tick))
        screens = [screen for screen, every in fewer.items() if index % every == 0]
        if not screens:
            continue
        only = f" {screens[0]}" if len(screens) == 1 else ""
        parts.append(
            f'<line class="grid{only}" x1="{x}" x2="{x}" y1="0" y2="100%"/>'
            f'<text class="{only.strip()}" x="{x}" y="100%" dy="18" text-anchor="middle">'
            f"{tick:g}</text>"
        )
    return parts


def _line(
    cards: Sequence[VariantCard], beaten: Mapping[str, str], xs: list[float], ys: list[float]
) -> list[str]:
    kept = [index for index, card in enumerate(cards) if card.variant not in beaten]
    best = [kept[at] for at in front([xs[i] for i in kept], [-ys[i] for i in kept])]
    return [
        f'<line class="step" x1="{_percent(xs[a])}" y1="{_percent(ys[a])}" '
        f'x2="{_percent(xs[b])}" y2="{_percent(ys[b])}"/>'
        for a, b in pairwise(best)
    ]


def _point(card: VariantCard, x: float, y: float, up: _Axis, is_beaten: bool, said: str) -> str:
    at, mark = _percent(x), _percent(y)
    ends = [_percent(1 - up.place(100 * end)) for end in (card.accuracy.low, card.accuracy.high)]
    caps = "".join(
        f'<svg x="{at}" y="{end}" overflow="visible"><line x1="-4" x2="4" y1="0" y2="0"/></svg>'
        for end in ends
    )
    shown = escape(said, quote=True).replace("\n", "&#10;")
    spoken = escape(said.replace("\n", "; "), quote=True)
    return (
        f'<g class="point{" beaten" if is_beaten else ""}" tabindex="0" role="button" '
        f'data-variant="{escape(card.variant)}" data-tip="{shown}" aria-label="{spoken}">'
        f"<title>{shown}</title>"
        f'<line x1="{at}" x2="{at}" y1="{ends[0]}" y2="{ends[1]}"/>{caps}'
        f'<circle class="mark" cx="{at}" cy="{mark}" r="5.5"/>'
        f'<circle class="reach" cx="{at}" cy="{mark}" r="14"/></g>'
    )


def _labels(
    cards: Sequence[VariantCard],
    beaten: Mapping[str, str],
    xs: list[float],
    ys: list[float],
    up: _Axis,
    screen: str,
    size: tuple[float, float],
) -> list[str]:
    """Names beside the points; one for which there is no room is left to the table."""
    places = [(x * size[0], y * size[1]) for x, y in zip(xs, ys, strict=True)]
    taken = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in places]
    bars = [
        (x - 3, (1 - up.place(100 * card.accuracy.high)) * size[1], x + 3,
         (1 - up.place(100 * card.accuracy.low)) * size[1])
        for card, (x, _) in zip(cards, places, strict=True)
    ]  # fmt: skip
    parts = []
    # What nobody beats is named first, where there is room for few.
    for i in sorted(range(len(cards)), key=lambda i: (cards[i].variant in beaten, ys[i])):
        name = cards[i].variant
        # Rather over another's bar than nowhere.
        for (dx, dy), others in ((place, others) for others in (bars, []) for place in _PLACES):
            box = _box(places[i], dx, dy, len(name) * _CHARACTER)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            if inside and not any(_meet(box, other) for other in (*taken, *others)):
                taken.append(box)
                anchor = "start" if dx > 0 else "end" if dx < 0 else "middle"
                kind = " beaten" if name in beaten else ""
                parts.append(
                    f'<svg class="{screen}" x="{_percent(xs[i])}" y="{_percent(ys[i])}" '
                    f'overflow="visible"><text class="label{kind}" x="{dx:g}" y="{dy + 4:g}" '
                    f'text-anchor="{anchor}" aria-hidden="true">{escape(name)}</text></svg>'
                )
                break
    return parts


_Box = tuple[float, float, float, float]


def _box(place: tuple[float, float], dx: float, dy: float, width: float) -> _Box:
    left = place[0] + dx - (0 if dx > 0 else width if dx < 0 else width / 2)
    middle = place[1] + dy
    return left, middle - _LINE / 2, left + width, middle + _LINE / 2


def _meet(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
