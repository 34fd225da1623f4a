"""The outlook: a plan carried forward by what came and went."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.choices import Choices, eligible
from router.constraints import Constraints, Priority
from router.menu import Menu
from router.outlook import Ahead, Outlook
from router.pace import Pace
from router.plan import NOTHING_PLANNED, plan
from router.queue import RANKS, Waiting
from tests.router.builders import menu, offer


def plate(model: str) -> Menu:
    return menu(
        offer("slow", 0.9375, first_ms=4.0, tail=1.0, max_batch=1),
        offer("fast", 0.875, first_ms=1.0, tail=1.0, max_batch=1),
        model=model,
    )


PLATES = {model: plate(model) for model in ("m", "n")}
PACES = {model: Pace(plate, {}, frozenset({"slow", "fast"})) for model, plate in PLATES.items()}
CHOICES = {m: eligible(Constraints(), "accuracy", p, 0.0, 1).choices for m, p in PLATES.items()}
EVEN = {"m": 0.5, "n": 0.5}
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")


def request(
    ticket: int, due_ms: float, model: str = "m", rows: int = 1, priority: Priority = "normal"
) -> Waiting:
    choices: Choices = CHOICES[model]
    return Waiting(due_ms / 1000, ticket, rows, due_ms / 1000, choices, "slow", priority)


def outlook(*queue: Waiting, shares: dict[str, float] | None = None) -> Outlook:
    planned = plan(sorted(queue), (), 0.0, (0.0,), PACES)
    return Outlook(planned, 0.0, shares or {"m": 1.0})


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    return [
        request(
            ticket,
            draw(st.integers(1, 100)),
            draw(st.sampled_from(["m", "n"])),
            draw(st.integers(1, 3)),
            draw(st.sampled_from(PRIORITIES)),
        )
        for ticket in range(draw(st.integers(0, 20)))
    ]


def test_with_nothing_planned_nothing_is_ahead() -> None:
    nothing = Outlook(NOTHING_PLANNED, -math.inf, {"m": 1.0})
    assert nothing.ahead(1.0, "m", "normal") == Ahead(0.0, 0.0)
    assert nothing.is_stale(0.0)


def test_what_is_due_before_goes_before() -> None:
    seen = outlook(request(0, 10), request(1, 20), request(2, 30))
    assert seen.prices["m"] == 0.0
    assert seen.ahead(0.005, "m", "normal") == Ahead(0.0, 0.0)
    assert seen.ahead(0.015, "m", "normal") == Ahead(4.0, 1.0)
    assert seen.ahead(1.0, "m", "normal") == Ahead(12.0, 3.0)


def test_at_least_it_waits_for_its_own_priority_and_those_above() -> None:
    seen = outlook(request(0, 10, priority="high"), request(1, 20), request(2, 30, priority="low"))
    assert [seen.ahead(1.0, "m", p).least_ms for p in PRIORITIES] == [1.0, 2.0, 3.0]
    assert {seen.ahead(1.0, "m", p).planned_ms for p in PRIORITIES} == {12.0}


def test_at_most_it_waits_for_its_own_models_on_the_share_that_is_its_own() -> None:
    flood = [request(n, 50, "n") for n in range(20)]
    seen = outlook(*flood, request(30, 60), shares=EVEN)
    assert seen.ahead(1.0, "m", "normal").least_ms == 1.0 / 0.5
    assert seen.ahead(1.0, "n", "normal").least_ms == 21.0


@given(queues(), st.sampled_from(["m", "n"]))
def test_who_is_due_later_or_counts_less_waits_no_less(queue: list[Waiting], model: str) -> None:
    seen = outlook(*queue, shares=EVEN)
    for priority in PRIORITIES:
        aheads = [seen.ahead(ms / 1000, model, priority) for ms in range(0, 120, 7)]
        for one, other in pairwise(aheads):
            assert one.planned_ms <= other.planned_ms
            assert one.least_ms <= other.least_ms
        for ahead in aheads:
            assert 0 <= ahead.least_ms <= ahead.planned_ms
    for high, low in pairwise(PRIORITIES):
        assert seen.ahead(0.05, model, high).least_ms <= seen.ahead(0.05, model, low).least_ms


@given(queues(), queues())
def test_what_came_and_went_again_leaves_no_trace(
    queue: list[Waiting], arrivals: list[Waiting]
) -> None:
    seen, untouched = outlook(*queue, shares=EVEN), outlook(*queue, shares=EVEN)
    for waiting in arrivals:
        seen.came(waiting, PACES[waiting.choices.model])
    for waiting in arrivals:
        seen.went(waiting, PACES[waiting.choices.model])
    for priority in PRIORITIES:
        one, other = (o.ahead(0.05, "m", priority) for o in (seen, untouched))
        assert one == pytest.approx(other)


@given(queues(), queues(), st.sampled_from(PRIORITIES))
def test_what_came_counts_until_the_next_plan(
    queue: list[Waiting], arrivals: list[Waiting], priority: Priority
) -> None:
    seen = outlook(*queue)
    before = seen.ahead(1.0, "m", priority)
    for waiting in arrivals:
        seen.came(waiting, PACES[waiting.choices.model])
    after = seen.ahead(1.0, "m", priority)
    own = [w.rows for w in arrivals if RANKS[w.priority] <= RANKS[priority]]
    assert after.least_ms == before.least_ms + sum(own)
    assert after.planned_ms >= before.planned_ms + sum(w.rows for w in arrivals)


def test_a_plan_is_out_of_date_after_some_arrivals_or_some_time() -> None:
    seen = outlook(request(0, 10))
    assert not seen.is_stale(0.004)
    assert seen.is_stale(0.006)
    for n in range(16):
        assert not seen.is_stale(0.0)
        seen.came(request(10 + n, 10), PACES["m"])
    assert seen.is_stale(0.0)
