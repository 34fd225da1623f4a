"""Proteus and SlackFit, which choose batches as well, do what they are known for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from router import policies
from router.choices import in_order
from router.dispatch import Moment
from router.menu import Menu, Offer
from router.pace import Pace
from router.policies import proteus, slackfit
from router.simulate import mix
from tests.laws import examples
from tests.router.policy_rig import (
    ACCURACY,
    ALL,
    DUE,
    LANES,
    MAX_BATCH,
    MENU,
    NAMES,
    NOW_S,
    answered_by,
    assigned,
    choices_of,
    moment,
    scene,
    simulated,
    tickets,
    waiting,
)


@examples(60)
@given(
    rate_per_s=st.floats(1.0, 40_000.0),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True),
    within_ms=st.floats(3.0, 60.0),
)
def test_proteus_shares_solve_its_program(
    rate_per_s: float, names: list[str], within_ms: float
) -> None:
    at = scene(rate_per_s=rate_per_s, within_ms=within_ms)
    choices = choices_of(*names)
    offers = choices.offers
    found = proteus.shares(choices, at)
    assert sum(share for _, share in found) == pytest.approx(1.0)
    assert all(share >= 0 for _, share in found) and len(found) <= 2
    takes_ms = []
    for offer in offers:
        rows = max(n for n in range(1, MAX_BATCH + 1) if offer.typical_ms[n] <= within_ms)
        takes_ms.append(offer.typical_ms[rows] / rows)
    budget_ms = LANES / (proteus.BETA * rate_per_s / 1000)
    accuracy = [offer.accuracy for offer in offers]
    solved = linprog(
        [-a for a in accuracy],
        A_ub=[takes_ms],
        b_ub=[budget_ms],
        A_eq=[[1.0] * len(offers)],
        b_eq=[1.0],
    )
    if solved.status == 0:
        mean = sum(share * offer.accuracy for offer, share in found)
        assert mean == pytest.approx(-solved.fun, abs=1e-6)
        used = sum(share * takes_ms[offers.index(offer)] for offer, share in found)
        assert used <= budget_ms * (1 + 1e-9)
    else:
        assert [offer for offer, _ in found] == [offers[int(np.argmin(takes_ms))]]


def test_proteus_spreads_requests_in_these_shares() -> None:
    shares = {
        offer.name: share for offer, share in proteus.shares(choices_of(), scene(rate_per_s=4500.0))
    }
    assert set(shares) == {"int8", "pruned"} and min(shares.values()) > 0.1
    counts = Counter(assigned("proteus", ticket=t, rate_per_s=4500.0) for t in range(10_000))
    for name, share in shares.items():
        assert counts[name] == pytest.approx(share * 10_000, abs=200)


def test_proteus_waits_for_a_fuller_batch_while_the_first_can() -> None:
    rule = policies.get("proteus")
    queue = [waiting(0, 30.0), waiting(1, 31.0)]
    made = rule.dispatch(queue, moment())
    assert made.members == ()
    assert made.wait_until_s == pytest.approx(NOW_S + 0.030 - 1.2 * (0.1 + 0.57 * 3) / 1000)
    again = rule.dispatch(queue, moment(now_s=made.wait_until_s))
    assert tickets(again.members) == [0, 1]
    assert again.promised_ms <= (queue[0].deadline_s - made.wait_until_s) * 1000


def test_proteus_runs_a_full_batch_and_one_that_cannot_grow_at_once() -> None:
    rule = policies.get("proteus")
    full = [waiting(n, 60.0) for n in range(MAX_BATCH)]
    assert len(rule.dispatch(full, moment()).members) == MAX_BATCH
    many = [waiting(n, 10.0) for n in range(MAX_BATCH)]
    assert 0 < len(rule.dispatch(many, moment()).members) < MAX_BATCH


def test_proteus_keeps_no_lane_from_another_variant() -> None:
    rule = policies.get("proteus")
    queue = [waiting(0, 30.0, "int8"), waiting(1, 40.0, "pruned")]
    assert rule.dispatch(queue, moment(0.0, 0.0)).members == ()
    assert tickets(rule.dispatch(queue, moment(0.0, 5.0)).members) == [0]


def test_the_replay_wakes_when_proteus_has_waited() -> None:
    outcomes, _ = simulated("proteus", [1.0], mix.single(DUE), lanes=1)
    (only,) = outcomes
    assert only.variant == "fp32" and only.kept
    # It starts when two rows would just make it, and is one.
    assert only.latency_ms == pytest.approx(30.0 - 2.05, abs=1e-6)


def picked(slack_ms: float, *names: str) -> tuple[str | None, int]:
    offer, rows = slackfit.pick(choices_of(*names), Pace(MENU, {}, ALL), slack_ms, 1, moment())
    return (None if offer is None else offer.name), rows


def test_slackfit_is_slower_and_more_accurate_the_more_slack_there_is() -> None:
    much, some, little = (picked(slack) for slack in (1000.0, 20.0, 2.0))
    assert much[0] == "fp32"
    assert ACCURACY["fp32"] > ACCURACY[str(some[0])] > ACCURACY[str(little[0])]
    assert picked(0.1) == (None, 1)
    assert picked(1000.0, "tiny", "int8")[0] == "int8"


@examples(60)
@given(slack_ms=st.floats(0.2, 120.0))
def test_slackfit_takes_the_largest_batch_of_the_slowest_bucket_that_fits(slack_ms: float) -> None:
    pace = Pace(MENU, {}, ALL)
    pairs = [
        (pace.promised_ms(offer, rows), rows, offer.name)
        for offer in MENU.offers
        for rows in range(1, MAX_BATCH + 1)
    ]
    low, high = min(pairs)[0], max(pairs)[0]
    width = (high - low) / slackfit.BUCKETS
    fitting = [pair for pair in pairs if pair[0] <= slack_ms]
    top = min(slackfit.BUCKETS - 1, int((max(fitting)[0] - low) / width))
    within = [pair for pair in fitting if pair[0] >= low + top * width - 1e-9]
    name, rows = picked(slack_ms)
    assert rows == max(pair[1] for pair in within)
    assert name in [pair[2] for pair in within if pair[1] == rows]


def test_slackfit_leaves_out_what_is_not_on_the_frontier() -> None:
    worse = Offer("worse", 0.8, 0.8, 0.8, 0.8, (0.0, 50.0, 90.0), (0.0, 50.0, 90.0), 1.0)
    better = Offer("better", 0.9, 0.9, 0.9, 1.0, (0.0, 2.0, 3.0), (0.0, 2.0, 3.0), 1.0)
    both = Menu("m", "better", (better, worse), {}, {"better": better, "worse": worse})
    pace = Pace(both, {}, frozenset({"better", "worse"}))
    at = Moment(0.0, (0.0,), {"m": pace}, max_batch=2)
    assert slackfit.pick(in_order(both, both.offers), pace, 100.0, 1, at) == (better, 2)


def test_slackfit_adapts_by_the_slack_alone() -> None:
    calm, busy = answered_by("slackfit", load=0.1), answered_by("slackfit", load=2.5)
    assert set(calm) <= {"fp32", "bf16"}
    assert busy["pruned"] + busy["distilled"] > 0.8 * sum(busy.values())


def test_slackfit_batches_only_those_that_may_be_answered_by_its_variant() -> None:
    queue = [
        waiting(0, 20.0, choices=choices_of("int8")),
        waiting(1, 21.0, choices=choices_of("bf16")),
        waiting(2, 22.0, choices=choices_of("int8", "bf16")),
    ]
    made = policies.get("slackfit").dispatch(queue, moment())
    assert (made.variant, tickets(made.members)) == ("int8", [0, 2])
