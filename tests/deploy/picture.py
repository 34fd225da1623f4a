"""The picture in docs/how-to/dashboards.md: some panels' own queries, about a real gateway.

    python -m tests.deploy.picture

Grafana is not needed, and is not what it shows: matplotlib draws what Prometheus answers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from tests.deploy.boards import board, panels
from tests.deploy.live import put, replace_build, times, traffic
from tests.deploy.scraping import Prometheus, Series
from tests.e2e.harness import Server, until
from tests.stores import write_variant

_OUT = Path(__file__).parents[2] / "docs" / "pictures" / "dashboards.png"
_SHOWN = (
    ("shifting", "Share of answers by variant"),
    ("shifting", "Load"),
    ("shifting", "Shifts"),
    ("overview", "Deadlines kept, over time"),
    ("overview", "Effective accuracy"),
    ("lanes", "Utilisation"),
)
_Answers = list[tuple[str, Series]]
# How many callers there are, one stage after the other, and for how long.
_STAGES = (2, 8, 24, 3)
_STAGE_S = 12.0
_WISH = {"Gearshift-Max-Latency-Ms": "120", "Gearshift-Min-Accuracy": "0.88"}


def _store(models: Path) -> None:
    for variant, accuracy, ms in (("fp32", 0.95, 40), ("int8", 0.94, 12), ("small", 0.90, 3)):
        write_variant(models, "digits", variant, accuracy=accuracy, **times(ms))


def _panel(name: str, title: str) -> dict[str, Any]:
    return next(panel for panel in panels(name) if panel["title"] == title)


def _legend(pattern: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        pattern = pattern.replace(f"{{{{{label}}}}}", value)
    return pattern


def _drawn(axes: Axes, panel: dict[str, Any], answers: _Answers, from_s: float) -> None:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    mode = custom.get("stacking", {}).get("mode", "none")
    lines: dict[str, dict[float, float]] = {}
    for pattern, series in answers:
        for one in series:
            name = _legend(pattern, one["metric"])
            lines[name] = {at - from_s: float(value) for at, value in one["values"]}
    times = sorted({at for line in lines.values() for at in line})
    if mode == "none":
        for name, line in lines.items():
            axes.plot(list(line), list(line.values()), label=name, linewidth=1.4)
    else:
        heights = [[line.get(at, 0.0) for at in times] for line in lines.values()]
        if mode == "percent":
            sums = [sum(column) or 1.0 for column in zip(*heights, strict=True)]
            heights = [
                [value / whole for value, whole in zip(row, sums, strict=True)] for row in heights
            ]
        axes.stackplot(times, heights, labels=list(lines), alpha=0.75)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(panel["title"], fontsize=9, loc="left", fontweight="bold")
    shares = mode == "percent" or unit == "percentunit"
    axes.set_ylabel("share" if shares else "a second", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.set_ylim(bottom=0 if unit != "percentunit" or mode == "percent" else None)
    axes.legend(fontsize=6, loc="upper left", ncols=1, framealpha=0.8)


def main() -> None:
    """Run the gateway, ask, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=_OUT)
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        models = Path(work) / "models"
        _store(models)
        (Path(work) / "prometheus").mkdir()
        with (
            Server(models, lanes=2, max_batch=4, max_queue=64, watch_seconds=0.2) as server,
            Prometheus(Path(work) / "prometheus", [server.address], "") as prometheus,
        ):
            until(lambda: prometheus.at("gearshift_lanes", time.time()), "it is scraped")
            from_s = time.time()
            for stage, clients in enumerate(_STAGES, start=1):
                end_s = from_s + stage * _STAGE_S
                with traffic(server, "digits", (), (_WISH,), clients, pause_s=0.02):
                    if stage == len(_STAGES):
                        replace_build(models, "digits", "int8", accuracy=0.94, **times(12))
                    until(lambda: time.time() > end_s, "the stage is over", 2 * _STAGE_S)  # noqa: B023
            to_s = time.time()
            found = []
            for name, title in _SHOWN:
                panel = _panel(name, title)
                answers = [
                    (target["legendFormat"], prometheus.over(put(target["expr"]), from_s, to_s))
                    for target in panel["targets"]
                ]
                found.append((board(name)["title"], panel, answers))
            swapped = put(board("shifting")["annotations"]["list"][1]["expr"])
            swaps = prometheus.over(swapped, from_s, to_s)
            marks = [at - from_s for one in swaps for at, _ in one["values"]]
    figure, grid = plt.subplots(2, 3, figsize=(14, 6.4), layout="constrained", sharex=True)
    for axes, (_, panel, answers) in zip(grid.flat, found, strict=True):
        _drawn(axes, panel, answers, from_s)
        for at in marks[:1]:
            axes.axvline(at, color="tab:orange", linestyle="--", linewidth=1)
    for axes in grid[1]:
        axes.set_xlabel("seconds", fontsize=7)
    figure.suptitle(
        "2, 8, 24, then 3 callers on two lanes; dashed: int8 was replaced by another build. "
        "Drawn by matplotlib from the dashboards' own queries.",
        fontsize=8,
    )
    figure.savefig(out, dpi=110)
    print(out)


if __name__ == "__main__":
    main()
