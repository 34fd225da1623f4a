"""Caution: under overload, who is let in is answered in time, and no lane time is lost for it."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import policies
from router.caution import AIM, Caution
from router.constraints import Constraints
from router.route import Policy, route
from router.simulate import table
from router.simulate.mix import single
from router.simulate.replay import Machine, Model, Outcome, replay
from router.simulate.service import Noise, noisy, service
from router.simulate.table import Row
from router.snapshot import Snapshot
from router.telemetry import Telemetry

LANES, MAX_BATCH, DEADLINE_MS = 2, 16, 30.0
VARIANTS = {"fp32": (0.95, 20.0), "int8": (0.93, 10.0), "small": (0.90, 4.0)}
CAPACITY_PER_S = LANES * MAX_BATCH / 4.0 * 1000
SECONDS = 0.5


def overloaded(times: float) -> list[Outcome]:
    """What becomes of requests that arrive that many times as often as lanes could answer them."""
    noise = Noise("lognormal", 0.3)
    latency = {str(MAX_BATCH): 0.0, "1": 0.0}
    text = json.dumps(
        {
            "variants": [
                {
                    "name": name,
                    "accuracy": accuracy,
                    "latency_ms": {
                        rows: ms * (0.2 + 0.8 * int(rows) / MAX_BATCH) for rows in sorted(latency)
                    },
                }
                for name, (accuracy, ms) in VARIANTS.items()
            ]
        }
    )
    ((model, rows),) = table.parse(text, "t").items()
    known = tuple(Row(row.name, row.accuracy, noisy(row.latency, noise)) for row in rows)
    menu = table.menu(model, known, percentile=99, usd_per_lane_hour=0.05, max_batch=MAX_BATCH)
    services = {row.name: service(row.latency, noise, MAX_BATCH) for row in rows}
    dice = Random(1)
    arrivals = [0.0]
    while arrivals[-1] < SECONDS:
        arrivals.append(arrivals[-1] + dice.expovariate(times * CAPACITY_PER_S))
    return replay(
        arrivals,
        [0] * len(arrivals),
        single(Constraints(max_latency_ms=DEADLINE_MS)),
        {model: Model(menu, frozenset(menu.by_name))},
        Machine(
            LANES,
            lambda _, variant, count, rng: services[variant].draw_ms(count, rng),
            max_batch=MAX_BATCH,
            overhead_ms=0.5,
        ),
        policies.get("gearshift"),
        Policy(),
        Random(2),
    )


def settled(outcomes: list[Outcome]) -> tuple[int, int]:
    """Of the second half: how many were answered in time, and how many were let in and lost."""
    half = [outcome for outcome in outcomes if outcome.at_s > SECONDS / 2]
    kept = sum(outcome.kept for outcome in half)
    return kept, sum(outcome.verdict in ("late", "expired") for outcome in half)


def test_overload_loses_hardly_anybody_who_was_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, lost = settled(overloaded(4))
    monkeypatch.setattr(Telemetry, "caution", lambda *_: 0.0)
    kept_without, lost_without = settled(overloaded(4))
    assert lost_without > 0.04 * kept_without  # else this proves nothing
    assert lost <= 0.01 * kept
    assert kept >= kept_without
    assert kept >= 0.85 * CAPACITY_PER_S * SECONDS / 2


@given(st.lists(st.booleans(), max_size=200))
def test_share_stays_within_its_bounds_and_every_loss_raises_it(lost: list[bool]) -> None:
    caution = Caution()
    for each in lost:
        before = caution.share
        caution.observe(each)
        assert 0.0 <= caution.share <= 2.0
        assert caution.share >= before if each else caution.share <= before


def test_share_settles_where_as_many_are_lost_as_are_aimed_at() -> None:
    """Where a share of 0.5 is what loses fewer than the aim, it is found."""
    caution, dice = Caution(), Random(3)
    shares, lost = [], 0
    for _ in range(20_000):
        each = dice.random() < (0.1 if caution.share < 0.5 else 0.0)
        lost += each
        caution.observe(each)
        shares.append(caution.share)
    assert 0.4 < sum(shares[2000:]) / 18_000 < 0.6
    assert lost / 20_000 < 2 * AIM


def test_who_is_refused_for_caution_is_told_when_to_come_again() -> None:
    ((model, rows),) = table.parse(
        json.dumps({"variants": [{"name": "one", "accuracy": 0.9, "latency_ms": {"1": 10.0}}]}), "t"
    ).items()
    menu = table.menu(model, tuple(rows), percentile=99, usd_per_lane_hour=0.05, max_batch=1)
    within = Constraints(max_latency_ms=40.0)
    waits = Snapshot(wait_ms=28.0, least_wait_ms=28.0, ready=frozenset(("one",)))
    assert route(within, menu, waits, Policy()).verdict == "accepted"
    refused = route(within, menu, waits._replace(caution=0.5), Policy())
    assert (refused.verdict, refused.retry_after_ms) == ("overloaded", 12.0)
    assert str(refused.nearest) == "max_latency_ms 52"
    # On idle lanes caution refuses nobody.
    idle = Snapshot(caution=2.0, ready=frozenset(("one",)))
    assert route(Constraints(max_latency_ms=10.0), menu, idle, Policy()).verdict == "accepted"
