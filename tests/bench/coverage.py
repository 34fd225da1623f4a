"""`make bench-coverage`: how often an answer came within its predicted latency.

In windows of 5,000 requests that were accepted, in simulated traffic on 16 lanes. One that was
accepted and not answered counts as beyond its prediction. The first window of each replay is told
apart: nothing was learnt yet. A fifth of the traffic optimises cost or,
to compare, nobody does.
"""

from __future__ import annotations

import argparse
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.bench import pages
from tests.bench.cluster import MIX, PER_LANE_S, PROMPT, replayed

WINDOW = 5000
_LANES = 16
_SEEDS, _WINDOWS, _LOADS = 3, 4, [0.4, 0.7, 1.0, 1.3]
_PAGE = Path("docs/explanation/routing.md")


class Job(NamedTuple):
    """One replay on 16 lanes of `windows` × 5,000 requests; `cost`: whether some optimise it."""

    process: str
    cost: bool
    load: float
    windows: int
    seed: int


def run(job: Job) -> list[float]:
    """Coverage by window, in %; a window that is not full is left out."""
    seconds = job.windows * WINDOW / (_LANES * job.load * PER_LANE_S)
    outcomes = replayed(
        1,
        _LANES,
        job.load,
        seconds,
        job.seed,
        process=job.process,
        who=MIX if job.cost else PROMPT,
    )
    kept = [
        one.verdict in ("answered", "late") and one.latency_ms <= one.predicted_ms
        for one in outcomes
        if one.verdict in ("answered", "late", "expired")
    ]
    return [
        100 * sum(kept[at : at + WINDOW]) / WINDOW
        for at in range(0, len(kept) - WINDOW + 1, WINDOW)
    ]


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.coverage", description=__doc__)
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    parser.add_argument(
        "--windows", type=int, default=_WINDOWS, help=f"of {WINDOW:,} requests, each replay"
    )
    parser.add_argument("--loads", type=float, nargs="+", default=_LOADS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    wanted = parser.parse_args()
    ran = pages.here()
    jobs = [
        Job(process, cost, load, wanted.windows, seed)
        for process, cost in (("poisson", False), ("gamma:cv=4", False), ("poisson", True))
        for load in wanted.loads
        for seed in range(1, wanted.seeds + 1)
    ]
    found: dict[Job, list[list[float]]] = {}
    with ProcessPoolExecutor(wanted.jobs) as pool:
        for job, coverage in zip(jobs, pool.map(run, jobs), strict=True):
            found.setdefault(job._replace(seed=0), []).append(coverage)
    text = (
        f"{ran} {wanted.seeds} seeds, {wanted.windows} windows of {WINDOW:,} accepted requests "
        f"each, {_LANES} lanes.\n\n{_table(found)}"
    )
    print(text)
    whole = (wanted.seeds, wanted.windows, wanted.loads) == (_SEEDS, _WINDOWS, _LOADS)
    pages.keep(wanted.docs, _PAGE, "make bench-coverage", text, whole=whole)


def _table(found: dict[Job, list[list[float]]]) -> str:
    rows = []
    for job, replays in found.items():
        first = statistics.median([windows[0] for windows in replays])
        later = [coverage for windows in replays for coverage in windows[1:]]
        rows.append(
            (
                job.process,
                "a fifth" if job.cost else "none",
                f"{job.load:g}",
                f"{first:.2f}",
                str(len(later)),
                *(f"{of(later):.2f}" for of in (min, statistics.median, max)),
            )
        )
    head = ("arrivals", "optimise cost", "load", "first window %", "later windows")
    return pages.table((*head, "least %", "median %", "most %"), rows)


if __name__ == "__main__":
    main()
