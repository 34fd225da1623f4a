"""What replay imitates of a gateway beside the scheduler, which is the gateway's own."""

from __future__ import annotations

from random import Random

import pytest

from router import policies
from router.simulate.replay import Machine, Model, replay
from router.simulate.service import drawer
from tests.router.simulate.workloads import workload


def test_a_lane_takes_its_gap_before_each_batch_and_an_answer_its_overhead_after() -> None:
    own = workload(variants={"v": (0.9, 2.0)})
    machine = Machine(1, drawer(own.services), overhead_ms=0.5, gap_ms=0.25)
    ready = {name: Model(menu, frozenset(menu.by_name)) for name, menu in own.menus.items()}
    outcomes = replay(
        [0.0, 0.001], [0, 0], own.mix, ready, machine, policies.get("gearshift"), own.policy,
        Random(1),
    )  # fmt: skip
    first, second = outcomes
    batch_ms = 0.1 + 2.0
    assert first.latency_ms == pytest.approx(0.25 + batch_ms + 0.5)
    assert second.latency_ms == pytest.approx(2 * (0.25 + batch_ms) + 0.5 - 1.0)
    assert [outcome.lane_ms for outcome in outcomes] == pytest.approx([batch_ms, batch_ms])
