"""Every policy keeps the contract, alone and in a replay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import policies
from router.choices import eligible
from router.constraints import Constraints, Floor
from router.dispatch import Moment
from router.pace import Pace
from router.queue import Waiting
from router.simulate import mix
from router.simulate.bound import Class, bound
from router.simulate.replay import Outcome
from tests.laws import examples
from tests.router.policy_rig import (
    ACCURACY,
    EXACT,
    LANES,
    MAX_BATCH,
    MENU,
    NAMES,
    NOW_S,
    POLICIES,
    assigned,
    came,
    choices_of,
    moment,
    scene,
    simulated,
    waiting,
)

every = pytest.mark.parametrize("name", POLICIES)


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    queue = []
    for ticket in range(draw(st.integers(1, 60))):
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
        slack_ms = draw(st.floats(-5.0, 60.0) | st.just(math.inf))
        rows = draw(st.sampled_from([1, 1, 1, 2, 7, MAX_BATCH + 5]))
        routed = draw(st.sampled_from(sorted(names)))
        soft = draw(st.sampled_from([False, False, False, True]))
        queue.append(waiting(ticket, slack_ms, routed, choices_of(*names), rows, soft))
    return sorted(queue)


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    ready = frozenset(draw(st.sets(st.sampled_from(NAMES), min_size=3)))
    busy = draw(st.lists(st.sampled_from([0.0, 0.0, 4.0]), max_size=3))
    return moment(0.0, *busy, ready=ready)


@every
@examples(60)
@given(queue=queues(), at=moments())
def test_a_batch_keeps_the_contract(name: str, queue: list[Waiting], at: Moment) -> None:
    rule = policies.get(name)
    made = rule.dispatch(queue, at)
    assert policies.get(name).dispatch(list(queue), at) == made

    gone = [*made.members, *made.expired]
    assert len({member.ticket for member in gone}) == len(gone)
    assert all(member in queue for member in gone)
    assert bool(made.members) == bool(made.variant) == (made.promised_ms > 0)
    for member in made.members:
        assert made.variant in [offer.name for offer in member.choices.offers]
        assert made.variant in at.paces["m"].ready
        assert rule.late or member.routed == made.variant
    rows = sum(member.rows for member in made.members)
    assert rows <= MAX_BATCH or len(made.members) == 1
    for dropped in made.expired:
        allowed = [o.name for o in dropped.choices.offers] if rule.late else [dropped.routed]
        assert not any(in_time(dropped, variant, at) for variant in allowed)
    # It runs, drops, or waits, and then no longer than somebody can.
    if not gone:
        assert NOW_S < made.wait_until_s <= min(member.due_s for member in queue)


def in_time(member: Waiting, variant: str, at: Moment) -> bool:
    pace = at.paces["m"]
    if variant not in pace.ready:
        return False
    ms = pace.typical_ms(MENU.by_name[variant], member.rows)
    return member.soft or ms <= (member.deadline_s - at.now_s) * 1000


@every
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True),
    ready=st.sets(st.sampled_from(NAMES)),
    ticket=st.integers(0, 10_000),
    rate_per_s=st.floats(0.0, 1e5),
    queued_rows=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 500)),
    within_ms=st.floats(0.1, 500.0) | st.just(math.inf),
    rows=st.sampled_from([1, 3, MAX_BATCH + 5]),
)
def test_what_is_assigned_is_a_choice_that_is_ready(
    name: str,
    names: list[str],
    ready: set[str],
    ticket: int,
    rate_per_s: float,
    queued_rows: dict[str, int],
    within_ms: float,
    rows: int,
) -> None:
    choices = choices_of(*names)
    at = scene(
        ticket,
        rate_per_s,
        queued_rows,
        within_ms,
        rows,
        pace=Pace(MENU, {}, frozenset(ready)),
    )
    rule = policies.get(name)
    offer = rule.assign(choices, at)
    assert policies.get(name).assign(choices, at) is offer
    if rule.late:
        return
    if offer is not None:
        assert offer in choices.offers and offer.name in ready
    elif name not in ("static:int8", "proteus"):
        assert not ready & set(names)


MIXED = mix.parse(
    """
    [[tenant]]
    share = 1
    name = "plain"
    max_latency_ms = 30
    [[tenant]]
    share = 1
    name = "floor"
    max_latency_ms = 20
    min_accuracy = 0.92
    rows = 3
    [[tenant]]
    share = 1
    name = "patient"
    [[tenant]]
    share = 1
    name = "soft"
    max_latency_ms = 5
    relax = "latency"
    [[tenant]]
    share = 1
    name = "impossible"
    min_accuracy = 0.99
    """,
    "mixed",
)


@every
@pytest.mark.parametrize("load", [0.2, 3.0])
def test_every_request_leaves_and_no_constraint_is_broken(name: str, load: float) -> None:
    outcomes, kinds = simulated(name, came("gamma:cv=4", load, 1500), MIXED)
    assert len(outcomes) == 1500
    for outcome, kind in zip(outcomes, kinds, strict=True):
        tenant = MIXED.tenants[kind]
        assert outcome.tenant == kind
        if tenant.name == "impossible":
            assert outcome.verdict == "unsatisfiable"
            continue
        assert outcome.verdict != "unsatisfiable"
        if outcome.variant:
            floor = tenant.constraints.min_accuracy
            assert floor is None or ACCURACY[outcome.variant] >= floor.value
    assert any(outcome.kept for outcome in outcomes)


def effective(outcomes: Sequence[Outcome]) -> float:
    return sum(ACCURACY[o.variant] for o in outcomes if o.kept) / len(outcomes)


@every
@pytest.mark.parametrize("spec", ["poisson", "gamma:cv=4"])
def test_no_policy_exceeds_the_bound(name: str, spec: str) -> None:
    arrivals_s = came(spec, 1.2, 5000)
    outcomes, kinds = simulated(name, arrivals_s, mix.single(Constraints(max_latency_ms=30.0)))
    of = Class(
        30.0,
        tuple(ACCURACY.values()),
        tuple(offer.typical_ms[MAX_BATCH] / MAX_BATCH for offer in EXACT.offers),
    )
    most = bound(arrivals_s, kinds, [of], lanes=LANES)
    assert effective(outcomes) <= most.worth
    if name in ("slackfit", "gearshift"):
        assert effective(outcomes) > 0.985 * most.worth


def test_a_policy_may_want_an_argument() -> None:
    assert "static:" in policies.names()
    assert assigned("static:bf16") == "bf16"


@pytest.mark.parametrize("name", ["fastest", "static", "static:", "slackfit:8", "", ":"])
def test_an_unknown_policy_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"there are .*slackfit.*static:VARIANT"):
        policies.get(name)


def test_eligible_choices_are_what_policies_are_given() -> None:
    kind = eligible(Constraints(min_accuracy=Floor(0.92)), "accuracy", MENU, 0.0, 1)
    for name in POLICIES:
        for ticket in range(6):
            got = assigned(name, kind.choices, ticket=ticket, rate_per_s=1e5)
            assert got is None or ACCURACY[got] >= 0.92
