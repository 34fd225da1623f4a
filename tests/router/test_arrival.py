"""Policies that assign at arrival: what the scheduler tells them, and what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from router import policies
from router.batching import batch
from router.choices import Choices
from router.constraints import Constraints, Floor
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.policies import Rule, Scene
from router.queue import Waiting
from router.route import Policy
from router.scheduler import Scheduler
from router.simulate.replay import Model
from router.telemetry import Telemetry
from tests.router.policy_rig import (
    ACCURACY,
    ALL,
    DUE,
    LANES,
    MAX_BATCH,
    MENU,
    NAMES,
    POLICIES,
)

every = pytest.mark.parametrize("name", POLICIES)


class Spy:
    """Assigns int8 and keeps the scenes."""

    late = False
    admits_all = True

    def __init__(self) -> None:
        self.scenes: list[Scene] = []

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        self.scenes.append(scene)
        return choices.offers[2 + scene.ticket % 2]

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        return batch(queue, moment)


def scheduler(rule: Rule) -> Scheduler:
    return Scheduler(
        {"m": Model(MENU, ALL)},
        Telemetry(overhead_start_ms=0.0),
        rule,
        Policy(accuracy_margin=0.0),
        lanes=LANES,
        max_batch=MAX_BATCH,
    )


def arrive(
    to: Scheduler, ticket: int, now_s: float, constraints: Constraints, rows: int = 1
) -> Waiting | None:
    decision = to.route("m", constraints, rows, now_s)
    if decision.verdict != "accepted":
        return None
    one = to.waiting(decision, constraints, rows, ticket, now_s)
    to.submit([one], now_s)
    return one


def test_the_scene_counts_what_waits_by_variant() -> None:
    spy = Spy()
    to = scheduler(spy)
    rng = Random(1)
    for ticket in range(400):
        now_s = ticket * 0.0005
        if ticket % 3 == 0:
            arrive(to, ticket, now_s, DUE, rows=rng.choice([1, 2]))
        elif ticket % 3 == 1 and to.queue.waiting:
            gone = rng.choice(to.queue.waiting)
            to.withdraw(gone)
            to.withdraw(gone)
        elif rng.random() < 0.2:
            to.take(0, now_s)
        before = Counter[str]()
        for one in to.queue.waiting:
            before[one.routed] += one.rows
        to.route("m", DUE, 1, now_s)
        assert +Counter(spy.scenes[-1].queued_rows) == before
    assert len({at.ticket for at in spy.scenes}) == len(spy.scenes)


def test_the_scene_knows_the_rate_from_the_start() -> None:
    spy = Spy()
    to = scheduler(spy)
    for ticket in range(2000):
        arrive(to, ticket, ticket * 0.001, DUE)
    for ticket in (30, 100, 500, 1999):
        assert spy.scenes[ticket].rate_per_s == pytest.approx(1000, rel=0.05)


def test_what_the_rule_assigns_is_what_the_decision_says() -> None:
    to = scheduler(policies.get("static:pruned"))
    decision = to.route("m", DUE, 2, 0.0)
    assert (decision.variant, decision.reason) == ("pruned", "assigned")
    assert decision.allowed[0] == "pruned" and sorted(decision.allowed) == sorted(NAMES)
    assert decision.accuracy == ACCURACY["pruned"]
    assert decision.cost_usd_per_million == MENU.by_name["pruned"].cost_usd_per_million(2)
    one = to.waiting(decision, DUE, 2, 1, 0.0)
    assert one.routed == "pruned"


def test_a_request_that_is_assigned_nothing_is_refused() -> None:
    to = scheduler(policies.get("static:tiny"))
    decision = to.route("m", Constraints(min_accuracy=Floor(0.92)), 1, 0.0)
    assert (decision.verdict, decision.variant) == ("overloaded", "")


@every
def test_only_those_that_predict_refuse_for_the_load(name: str) -> None:
    rule = policies.get(name)
    to = scheduler(rule)
    for ticket in range(5000):
        arrive(to, ticket, ticket * 1e-7, DUE)
    assert (len(to.queue.waiting) == 5000) == rule.admits_all
    assert to.route("m", Constraints(min_accuracy=Floor(0.99)), 1, 0.0).verdict == "unsatisfiable"
    assert to.route("m", Constraints(max_latency_ms=0.01), 1, 0.0).verdict == "unsatisfiable"
