"""The picture of a simulation: one policy over time, a column for each load."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from textwrap import fill
from typing import Any, NamedTuple

from router.simulate import trial
from router.simulate.bound import Bound
from router.simulate.score import Score, Window
from router.simulate.trial import Workload

_INK, _FAINT, _GREY, _OURS, _BOUND = "#1f2933", "#cbd2d9", "#616e7c", "#0b7285", "#c92a2a"
# From the most accurate variant to the least: of one palette, told apart also in grey.
_PALETTE = "viridis"


class Column(NamedTuple):
    """One replay.

    Attributes:
        capacity_per_s: what the lanes answer at most by the middle variant.
    """

    title: str
    windows: Sequence[Window]
    score: Score
    bound: Bound
    capacity_per_s: float


def available() -> bool:
    """Whether the library that draws is installed."""
    return find_spec("matplotlib") is not None


def draw(workload: Workload, policy: str, columns: Sequence[Column]) -> bytes:
    """A PNG: load, variants, attainment, effective accuracy and cost over time.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    variants = [
        (model, offer.name) for model, menu in workload.menus.items() for offer in menu.offers
    ]
    figure = Figure(figsize=(2.2 + 3.6 * len(columns), 11), dpi=120, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    grid: Any = figure.subplots(
        5, len(columns), sharex="col", sharey="row", squeeze=False, height_ratios=(2, 3, 2, 3, 2)
    )
    figure.suptitle(
        f"{policy} under {trial.name_of(workload.arriving)}", x=0.01, ha="left",
        color=_INK, fontsize=14, fontweight="bold",
    )  # fmt: skip
    colors = _colors(len(variants))
    for at, column in enumerate(columns):
        _load(grid[0][at], column)
        _mix(grid[1][at], column, variants, colors)
        _attainment(grid[2][at], column)
        _accuracy(grid[3][at], column)
        _cost(grid[4][at], column)
        grid[4][at].set_xlabel("s", color=_INK)
        for row in range(5):
            axes = grid[row][at]
            if workload.slow_from_half != 1.0:
                half_s = (column.windows[0].from_s + column.windows[-1].to_s) / 2
                axes.axvline(
                    half_s, color=_INK, linestyle=":", linewidth=1.2,
                    label=f"from here {workload.slow_from_half:g} times slower" if row == 0 else "",
                )  # fmt: skip
            axes.set_xlim(column.windows[0].from_s, column.windows[-1].to_s)
            axes.grid(color=_FAINT, alpha=0.5, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=_INK, labelsize=8)
    titles = (
        "Requests / s", "Answered by, % of requests", "In time, %", "Effective accuracy, %",
        "Cost, USD / M",
    )  # fmt: skip
    for row, title in enumerate(titles):
        grid[row][0].set_ylabel(title, color=_INK, fontsize=9)
    figure.align_ylabels(grid[:, 0])
    for row in (0, 4):
        grid[row][0].set_ylim(bottom=0)
    # Room for a line at 100 %, and so much below that a few late ones look like few.
    lowest = min(grid[2][0].get_ylim()[0], 98.0)
    grid[2][0].set_ylim(lowest, 100 + (100 - lowest) / 20)
    _legends(figure, grid, workload, variants, colors)
    content = io.BytesIO()
    canvas.print_png(content)
    return content.getvalue()


def _load(axes: Any, column: Column) -> None:
    axes.set_title(
        f"{column.title}\nin time {100 * column.score.attainment:.2f} %, "
        f"effective accuracy {100 * column.score.effective_accuracy_all:.2f} %",
        fontsize=9, color=_INK, loc="left",
    )  # fmt: skip
    edges, rates = _steps(column, lambda w: w.requests / (w.to_s - w.from_s))
    axes.fill_between(edges, rates, step="post", color=_GREY, alpha=0.3, linewidth=0)
    axes.step(edges, rates, where="post", color=_GREY, linewidth=1, label="arriving")
    axes.axhline(
        column.capacity_per_s,
        color=_INK,
        linestyle="--",
        linewidth=1,
        label="middle variant's most (load 1)",
    )


def _mix(
    axes: Any, column: Column, variants: Sequence[tuple[str, str]], colors: Sequence[Any]
) -> None:
    bottom = [0.0] * (len(column.windows) + 1)
    for variant, color in zip(variants, colors, strict=True):
        edges, shares = _steps(column, partial(_share, variant))
        top = [low + share for low, share in zip(bottom, shares, strict=True)]
        axes.fill_between(edges, bottom, top, step="post", color=color, linewidth=0)
        bottom = top
    axes.set_ylim(0, 100)


def _share(variant: tuple[str, str], window: Window) -> float:
    return 100 * window.answers[variant] / window.requests if window.requests else 0.0


def _attainment(axes: Any, column: Column) -> None:
    edges, shares = _steps(
        column, lambda w: 100 * w.answered / w.requests if w.requests else math.nan
    )
    axes.step(edges, shares, where="post", color=_OURS, linewidth=1.3)


def _accuracy(axes: Any, column: Column) -> None:
    edges, of_all = _steps(
        column, lambda w: 100 * w.accuracy / w.requests if w.requests else math.nan
    )
    _, of_answered = _steps(
        column, lambda w: 100 * w.accuracy / w.answered if w.answered else math.nan
    )
    axes.step(edges, of_answered, where="post", color=_GREY, linewidth=1, label="of those answered")
    axes.step(edges, of_all, where="post", color=_OURS, linewidth=1.3, label="of all requests")
    axes.axhline(
        100 * column.bound.worth, color=_BOUND, linestyle="--", linewidth=1,
        label="bound, whole time",
    )  # fmt: skip


def _cost(axes: Any, column: Column) -> None:
    edges, usd = _steps(
        column, lambda w: w.usd_per_million / w.answered if w.answered else math.nan
    )
    axes.step(edges, usd, where="post", color=_OURS, linewidth=1.3)


def _steps(column: Column, value: Callable[[Window], float]) -> tuple[list[float], list[float]]:
    """Edges of the windows, and the value of each, the last one twice so that it has its width."""
    values = [value(window) for window in column.windows]
    edges = [window.from_s for window in column.windows]
    return [*edges, column.windows[-1].to_s], [*values, values[-1]]


def _colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    shades = colormaps[_PALETTE]
    return [shades(0.1 + 0.85 * at / max(1, count - 1)) for at in range(count)]


def _legends(
    figure: Any,
    grid: Any,
    workload: Workload,
    variants: Sequence[tuple[str, str]],
    colors: Sequence[Any],
) -> None:
    from matplotlib.patches import Patch

    several = len(workload.menus) > 1
    patches = [
        Patch(color=color, label=f"{model}/{name}" if several else name)
        for (model, name), color in zip(variants, colors, strict=True)
    ]
    # Beside the last column: inside, a legend would hide what it explains.
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False, "fontsize": 8}
    grid[1][-1].legend(handles=patches, **place)
    for row in (0, 3):
        grid[row][-1].legend(**place)
    note = (
        "Effective accuracy: mean accuracy of what was answered in time; of all requests, where "
        "others count 0 (Model-Switching), and of those answered (Proteus). White: not answered."
    )
    figure.supxlabel(
        fill(note, int(15 * figure.get_figwidth())),
        fontsize=8, color=_GREY, x=0.01, ha="left",
    )  # fmt: skip
