"""The comparison of policies: their figures over all draws, at each load on a number of lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.cli.trials import Done, Job
from router.simulate import trial
from router.simulate.bound import Bound
from router.simulate.score import Figure, Line, Score, over_seeds, share_of_gain
from router.simulate.trial import Case, Workload


class Run(NamedTuple):
    """A load on a number of lanes."""

    load: float
    lanes: int
    rate_per_s: float

    def case(self, seed: int) -> Case:
        return Case(self.rate_per_s, self.lanes, seed)


class Row(NamedTuple):
    """A policy's figures over all seeds."""

    policy: str
    attainment: Figure
    accuracy_all: Figure
    accuracy_answered: Figure
    cost: Figure
    gained: Figure | None


class Result(NamedTuple):
    """Every policy at one load on a number of lanes, the best first."""

    run: Run
    bound: Figure
    served: Figure
    best_alone: str
    rows: list[Row]


def line_of(
    workload: Workload,
    run: Run,
    seed: int,
    policy: str,
    of: Score,
    limits: Mapping[Case, Bound],
) -> Line:
    """One replay, as a line of the CSV."""
    return Line(
        trial.name_of(workload.arriving),
        run.load,
        run.lanes,
        seed,
        policy,
        of.attainment,
        of.effective_accuracy_all,
        of.effective_accuracy_answered,
        of.cost_usd_per_million,
        limits[run.case(seed)].worth,
    )


def result_of(
    run: Run,
    names: Sequence[str],
    seeds: int,
    done: Mapping[Job, Done],
    limits: Mapping[Case, Bound],
) -> Result:
    """What came of one load on a number of lanes."""
    cases = [run.case(seed) for seed in range(1, seeds + 1)]
    scores = {name: [done[Job(case, name)].score for case in cases] for name in names}
    worth = {name: [of.effective_accuracy_all for of in found] for name, found in scores.items()}
    bounds = [limits[case].worth for case in cases]
    alone = [name for name in names if name.startswith("static")]
    # The best in hindsight, of every draw anew: nobody knows beforehand which it will be.
    best = [max(worth[name][at] for name in alone) for at in range(seeds)] if alone else None
    rows = [
        Row(
            name,
            over_seeds([of.attainment for of in found]),
            over_seeds(worth[name]),
            over_seeds([of.effective_accuracy_answered for of in found]),
            over_seeds([of.cost_usd_per_million for of in found]),
            None if best is None or name in alone else share_of_gain(worth[name], best, bounds),
        )
        for name, found in scores.items()
    ]
    rows.sort(key=lambda row: -row.accuracy_all.mean)
    return Result(
        run,
        over_seeds(bounds),
        over_seeds([limits[case].served for case in cases]),
        next((row.policy for row in rows if row.policy in alone), ""),
        rows,
    )
