"""`make bench-shards`: what is lost when the same lanes are split into shards.

Simulated: arrivals, lanes and how long batches take. Real: every decision, by the server's own
scheduler. Measured: the processor time of a decision, by which shards are sized; the simulator's
own bookkeeping is in it, so it is an upper bound. A simulated decision takes no simulated time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from router.simulate import table
from router.simulate.score import over_seeds, score
from tests.bench import pages
from tests.bench.cluster import MENU, MIX, PER_LANE_S, by_client, by_request, replayed

_SPLITS = {"request": by_request, "client": by_client}
_SHAPES = (
    (1, 64, "request"),
    (4, 16, "request"),
    (16, 4, "request"),
    (64, 1, "request"),
    (4, 16, "client"),
    (16, 4, "client"),
)
_SEEDS, _SECONDS, _LOADS = 3, 3.0, [0.5, 1.0, 1.5]
_PAGE = Path("docs/explanation/routing.md")
_LARGE = ((1, 1000, "request"), (20, 50, "request"), (50, 20, "request"))


class Job(NamedTuple):
    """One replay: as `cluster.replayed`."""

    shards: int
    lanes: int
    split: str
    load: float
    seconds: float
    seed: int


class Done(NamedTuple):
    """What came of it: shares from 0 to 1, and processor time in µs a request."""

    attainment: float
    accuracy_all: float
    accuracy_answered: float
    us: float
    requests: int


def run(job: Job) -> Done:
    """One replay."""
    began_s = time.process_time()
    outcomes = replayed(
        job.shards, job.lanes, job.load, job.seconds, job.seed, split=_SPLITS[job.split]
    )
    us = (time.process_time() - began_s) * 1e6 / len(outcomes)
    models = [table.MODEL] * len(MIX.tenants)
    found = score(outcomes, models, {table.MODEL: MENU})
    return Done(
        found.attainment,
        found.effective_accuracy_all,
        found.effective_accuracy_answered,
        us,
        len(outcomes),
    )


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shards", description=__doc__)
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of traffic, each replay")
    parser.add_argument("--loads", type=float, nargs="+", default=_LOADS)
    parser.add_argument("--only", choices=["pooling", "large"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    wanted = parser.parse_args()
    parts = [pages.here()]
    with ProcessPoolExecutor(wanted.jobs) as pool:
        if wanted.only != "large":
            jobs = [
                Job(*shape, load, wanted.seconds, seed)
                for load in wanted.loads
                for shape in _SHAPES
                for seed in range(1, wanted.seeds + 1)
            ]
            parts[0] += f" {wanted.seeds} seeds, {wanted.seconds:g} s of traffic each."
            parts.append(_table(jobs, list(pool.map(run, jobs))))
        if wanted.only != "pooling":
            # A second of it, and one seed: it is the processor time that is asked.
            jobs = [Job(*shape, 1.0, 1.0, 1) for shape in _LARGE]
            parts.append("**1,000 lanes and 100,000 requests/s**, one second, one seed")
            parts.append(_table(jobs, list(pool.map(run, jobs))))
    text = "\n\n".join(part.rstrip() for part in parts)
    print(text)
    asked = (wanted.seeds, wanted.seconds, wanted.loads, wanted.only)
    whole = asked == (_SEEDS, _SECONDS, _LOADS, None)
    pages.keep(wanted.docs, _PAGE, "make bench-shards", text, whole=whole)


def _table(jobs: Sequence[Job], done: Sequence[Done]) -> str:
    by_shape: dict[Job, list[Done]] = {}
    for job, one in zip(jobs, done, strict=True):
        by_shape.setdefault(job._replace(seed=0), []).append(one)
    rows = []
    for job, ran in by_shape.items():
        figures = [
            over_seeds([100 * value for value in values])
            for values in (
                [one.attainment for one in ran],
                [one.accuracy_all for one in ran],
                [one.accuracy_answered for one in ran],
            )
        ]
        rows.append(
            (
                f"{job.load:g}",
                f"{job.shards * job.lanes * job.load * PER_LANE_S:,.0f}",
                f"{job.shards} × {job.lanes}",
                job.split,
                *(
                    f"{figure.mean:.2f}" + (f" ± {figure.half:.2f}" if len(ran) > 1 else "")
                    for figure in figures
                ),
                f"{statistics.median([one.us for one in ran]):.0f}",
            )
        )
    return pages.table(
        (
            *("load", "requests/s", "shards × lanes", "split by", "in time %"),
            *("accuracy, all %", "accuracy, answered %", "µs a request"),
        ),
        rows,
    )


if __name__ == "__main__":
    main()
