"""The picture of what changing each layer alone does: a row a layer, in the network's order."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from compressors.errors import NotSupported
from compressors.sensitivity import LayerSensitivity

_INK, _QUIET, _FAINT, _DROP, _ERROR = "#1f2933", "#616e7c", "#cbd2d9", "#c2410c", "#0b7285"
_ROW_INCHES, _LONGEST = 0.19, 46


def draw(
    found: Mapping[str, Sequence[LayerSensitivity]],
    titles: Mapping[str, str],
    heading: str,
    metric: str,
) -> bytes:
    """A PNG: for each change two columns of bars, the drop of the metric in points and the
    relative error of the outputs. `titles` says what each change is. A layer that a change does not
    apply to has no bar there.

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

    layers = in_order([[one.layer for one in each] for each in found.values()])
    figure = Figure(
        figsize=(3.2 + 4.6 * len(found), 2.0 + _ROW_INCHES * max(8, len(layers))),
        dpi=130,
        layout="constrained",
    )
    canvas: Any = FigureCanvasAgg(figure)
    grid: Any = figure.subplots(1, 2 * len(found), sharey=True, squeeze=False)
    figure.suptitle(heading, x=0.01, ha="left", color=_INK, fontsize=12, fontweight="bold")
    columns = [
        (change, what, color, [(one.layer, scale * getattr(one, field)) for one in each])
        for change, each in found.items()
        for what, field, scale, color in (
            (f"drop of {metric}, points", "drop", 100.0, _DROP),
            ("error of the outputs, %", "error", 100.0, _ERROR),
        )
    ]
    for axes, (change, what, color, bars) in zip(grid[0], columns, strict=True):
        _bars(axes, layers, bars, color)
        axes.set_xlabel(what, color=_INK, fontsize=9)
        if color == _DROP:
            axes.set_title(titles[change], color=_INK, fontsize=10, loc="left")
    axes = grid[0][0]
    axes.set_yticks(range(len(layers)), [_short(name) for name in layers], fontsize=8)
    axes.set_ylim(len(layers) - 0.4, -0.6)  # the first layer on top
    figure.supxlabel(
        "Each layer changed alone, on validation samples. A drop below 0 is a gain.",
        fontsize=8, color=_QUIET, x=0.01, ha="left",
    )  # fmt: skip
    content = io.BytesIO()
    canvas.print_png(content)
    return content.getvalue()


def in_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """Every name once, in an order that each list agrees with: each list is a part of one
    network's layers in their order."""
    merged: list[str] = []
    for names in lists:
        at = 0
        for name in names:
            if name in merged:
                at = merged.index(name) + 1
            else:
                merged.insert(at, name)
                at += 1
    return merged


def _bars(axes: Any, layers: list[str], bars: list[tuple[str, float]], color: str) -> None:
    rows = [layers.index(layer) for layer, _ in bars]
    values = [value for _, value in bars]
    axes.barh(rows, values, height=0.68, color=color)
    axes.axvline(0, color=_QUIET, linewidth=0.8)
    if not any(values):
        axes.set_xlim(0, 1)  # nothing dropped: a scale all the same
    else:
        axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=4)
    # Rows are told apart where there are many.
    for row in range(0, len(layers), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=_FAINT, alpha=0.22, linewidth=0, zorder=0)
    axes.grid(axis="x", color=_FAINT, alpha=0.6, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors=_INK, labelsize=8)


def _short(name: str) -> str:
    """The end of a dotted name tells layers apart, its beginning seldom does."""
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
