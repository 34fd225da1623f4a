"""`python -m tests.bench.shards`: what is lost when the same lanes are split into shards.

Simulated: arrivals, lanes and how long batches take. Real: every decision, by the server's own
scheduler. Measured: the processor time of a decision, by which shards are sized; the simulator's
own bookkeeping is in it, so it is an upper bound. A simulated decision takes no simulated time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from router.simulate import table
from router.simulate.score import over_seeds, score
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
    """Run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shards", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of traffic, each replay")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    parser.add_argument("--only", choices=["pooling", "large"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    wanted = parser.parse_args()
    seeds = range(1, wanted.seeds + 1)
    with ProcessPoolExecutor(wanted.jobs) as pool:
        if wanted.only != "large":
            jobs = [
                Job(*shape, load, wanted.seconds, seed)
                for load in wanted.loads
                for shape in _SHAPES
                for seed in seeds
            ]
            _print(jobs, list(pool.map(run, jobs)))
        if wanted.only != "pooling":
            # A second of it, and one seed: it is the processor time that is asked.
            jobs = [Job(*shape, 1.0, 1.0, 1) for shape in _LARGE]
            print("\n1,000 lanes, 100,000 requests/s")
            _print(jobs, list(pool.map(run, jobs)))


def _print(jobs: list[Job], done: list[Done]) -> None:
    print("| load | requests/s | shards × lanes | split by | in time % | accuracy, all % "
          "| accuracy, answered % | µs a request |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    by_shape: dict[Job, list[Done]] = {}
    for job, one in zip(jobs, done, strict=True):
        by_shape.setdefault(job._replace(seed=0), []).append(one)
    for job, ran in by_shape.items():
        figures = [
            over_seeds([100 * value for value in values])
            for values in (
                [one.attainment for one in ran],
                [one.accuracy_all for one in ran],
                [one.accuracy_answered for one in ran],
            )
        ]
        cells = [
            f"{figure.mean:.2f}" + (f" ± {figure.half:.2f}" if len(ran) > 1 else "")
            for figure in figures
        ]
        rate = job.shards * job.lanes * job.load * PER_LANE_S
        us = statistics.median([one.us for one in ran])
        print(
            f"| {job.load:g} | {rate:,.0f} | {job.shards} × {job.lanes} | {job.split} | "
            f"{' | '.join(cells)} | {us:.0f} |"
        )


if __name__ == "__main__":
    main()
