"""The shares of a profile as stacked bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from tests.bench.profile import parts

_COLOURS = ("#4269d0", "#97bbf5", "#efb118", "#ff725c", "#9c6b4e", "#3ca951", "#a463f2")
_GREYS = ("#6e7074", "#b9bcc2")


def draw(file: Path, shares: Mapping[str, Counter[str]], samples: int) -> None:
    """One bar for each of `shares`, in percent of `samples`, which is one core all the time."""
    names = [*parts.PARTS, parts.LOOP, parts.OTHER]
    colours = dict(zip(names, (*_COLOURS, *_GREYS), strict=True))
    mpl.rcParams.update({"svg.hashsalt": "gearshift", "font.size": 9})
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.5 * len(shares)), layout="constrained")
    bars = list(shares.items())[::-1]
    left = [0.0] * len(bars)
    for name in names:
        widths = [100 * counted[name] / samples for _, counted in bars]
        if max(widths, default=0) < 0.5:
            continue
        drawn = axes.barh([bar for bar, _ in bars], widths, left=left, label=name,
                          color=colours[name], edgecolor="white", linewidth=0.6)  # fmt: skip
        labels = [f"{width:.0f}" if width >= 3 else "" for width in widths]
        axes.bar_label(drawn, labels, label_type="center", color="white", fontsize=8)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlabel("% of one core")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
