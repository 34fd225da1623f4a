"""How many lanes are enough: the search, and why no number is where none is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from gateway.cli.console import UNSATISFIABLE, fail
from gateway.cli.figures import percent, rate
from gateway.cli.policies import OURS
from gateway.cli.trials import Job, Pool
from router.simulate import trial
from router.simulate.score import Score
from router.simulate.trial import Case, Workload


class Target(NamedTuple):
    """What is to be reached."""

    attainment: float
    accuracy: float | None

    def met(self, scores: list[Score]) -> bool:
        """Whether every draw reaches it."""
        return all(
            of.attainment >= self.attainment
            and (self.accuracy is None or of.effective_accuracy_answered >= self.accuracy)
            for of in scores
        )


class Found(NamedTuple):
    """What was found.

    Attributes:
        least: lanes below which no policy could reach the target.
        scores: of every draw that was looked at with `lanes`, the fresh ones too.
        used: answers by (model, variant), over all draws.
        enough: whether the targets were seen to hold with nothing else loaded.
    """

    lanes: int
    least: int
    scores: list[Score]
    used: Counter[tuple[str, str]]
    enough: bool


def check_reachable(workload: Workload, accuracy: float | None) -> None:
    """Exits where answers cannot be as accurate as that on any number of lanes."""
    if accuracy is None:
        return
    best = math.fsum(
        tenant.share * max(offer.accuracy for offer in trial.allowed(workload, tenant))
        for tenant in workload.mix.tenants
    )
    if best < accuracy:
        fail(
            f"--target-accuracy: no number of lanes suffices: expected at most {best:.6g}, which "
            f"the most accurate variants that may answer have, got {accuracy:g}",
            UNSATISFIABLE,
        )


def search(
    workers: Pool,
    workload: Workload,
    target: Target,
    rate_per_s: float,
    seeds: int,
    max_lanes: int,
) -> Found:
    """The least number of lanes that is enough; exits with the reason where none is."""

    def replayed(
        lanes: int, first: int = 1, loaded: frozenset[tuple[str, str]] | None = None
    ) -> list[Score]:
        todo = [
            Job(Case(rate_per_s, lanes, seed), OURS, loaded=loaded)
            for seed in range(first, first + seeds)
        ]
        return [done.score for done in workers.replays(todo, f"{lanes} lanes").values()]

    def possible(lanes: int) -> bool:
        limits = workers.limits([Case(rate_per_s, lanes, seed) for seed in range(1, seeds + 1)])
        least_worth = target.attainment * (target.accuracy or 0.0)
        return all(
            of.served >= target.attainment and of.worth >= least_worth for of in limits.values()
        )

    if not possible(max_lanes):
        _hopeless(workers, target, rate_per_s, seeds, max_lanes)
    least = _first(possible, 0, max_lanes)
    # More lanes are not always better to the last digit, so what holds is looked for upwards.
    failed, lanes, step = least - 1, least, 1
    while not target.met(replayed(lanes)):
        if lanes == max_lanes:
            _too_few(replayed(max_lanes), target, max_lanes)
        failed, lanes, step = lanes, min(lanes + step, max_lanes), step * 2
    lanes = _first(lambda count: target.met(replayed(count)), failed, lanes)
    while not target.met(replayed(lanes, seeds + 1)):
        if lanes == max_lanes:
            _too_few(replayed(max_lanes, seeds + 1), target, max_lanes)
        lanes += 1
    scores = replayed(lanes) + replayed(lanes, seeds + 1)
    used: Counter[tuple[str, str]] = Counter()
    for of in scores:
        used.update(of.answers)
    loaded = frozenset(used)
    idle = sum(len(menu.offers) for menu in workload.menus.values()) > len(used)
    enough = idle and target.met(replayed(lanes, 1, loaded) + replayed(lanes, seeds + 1, loaded))
    return Found(lanes, least, scores, used, enough)


def _first(holds: Callable[[int], bool], fails: int, known: int) -> int:
    """The first number above `fails` for which `holds`, by bisection; it does for `known`."""
    while known - fails > 1:
        middle = (fails + known) // 2
        if holds(middle):
            known = middle
        else:
            fails = middle
    return known


def _hopeless(
    workers: Pool, target: Target, rate_per_s: float, seeds: int, max_lanes: int
) -> NoReturn:
    limits = workers.limits([Case(rate_per_s, max_lanes, seed) for seed in range(1, seeds + 1)])
    served = min(of.served for of in limits.values())
    if served < target.attainment:
        fail(
            f"no number of lanes up to {max_lanes} suffices: at {rate(rate_per_s)} requests/s no "
            f"policy could answer more than {percent(served)} in time, even by the fastest "
            f"variants, and {percent(target.attainment)} is asked for; raise --max-lanes, or the "
            "deadline",
            UNSATISFIABLE,
        )
    worth = min(of.worth for of in limits.values())
    asked = target.attainment * (target.accuracy or 0.0)
    fail(
        f"no number of lanes up to {max_lanes} suffices: at {rate(rate_per_s)} requests/s no "
        f"policy could reach an effective accuracy above {worth:.5f}, and "
        f"{percent(target.attainment)} in time at {target.accuracy:g} comes to {asked:.5f}; "
        "raise --max-lanes, or lower --target-accuracy",
        UNSATISFIABLE,
    )


def _too_few(scores: list[Score], target: Target, lanes: int) -> NoReturn:
    worst = min(scores, key=lambda of: of.attainment)
    lost = Counter(worst.verdicts)
    lost.pop("answered", None)
    total = sum(worst.verdicts.values())
    why = ", ".join(f"{percent(n / total)} {verdict}" for verdict, n in lost.most_common())
    accuracy = min(of.effective_accuracy_answered for of in scores)
    wanted = "" if target.accuracy is None else f" at {target.accuracy:g}"
    fail(
        f"no number of lanes up to {lanes} suffices: with {lanes} {percent(worst.attainment)} are "
        f"answered in time, at an accuracy of {accuracy:.5f}"
        + (f" ({why})" if why else "")
        + f"; {percent(target.attainment)}{wanted} is asked for",
        UNSATISFIABLE,
    )
