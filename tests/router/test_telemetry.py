"""What finished batches teach, and what is forgotten."""

from __future__ import annotations

import pytest

from gateway.telemetry import OVERHEAD_START_MS, Telemetry


def observe(telemetry: Telemetry, ratio: float, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        telemetry.batch("m", "v", expected_ms=2.0, actual_ms=2.0 * ratio, now_s=now_s)


def test_a_few_batches_prove_nothing() -> None:
    telemetry = Telemetry()
    observe(telemetry, 3.0, 4)
    assert telemetry.slowdown("m", 0.0) == {}


def test_the_median_of_the_latest_counts() -> None:
    telemetry = Telemetry()
    observe(telemetry, 1.0, 40)
    assert telemetry.slowdown("m", 0.0) == {"v": 1.0}
    # The oldest are dropped, so a machine that slowed down is soon believed to be slow.
    observe(telemetry, 2.0, 20)
    assert telemetry.slowdown("m", 0.0)["v"] == pytest.approx(2.0)
    # One slow batch among many is an accident.
    observe(telemetry, 50.0, 1)
    assert telemetry.slowdown("m", 0.0)["v"] == pytest.approx(2.0)


def test_after_a_quiet_while_the_card_is_believed_again() -> None:
    telemetry = Telemetry()
    observe(telemetry, 4.0, 10, now_s=100.0)
    assert telemetry.slowdown("m", 129.0) == {"v": 4.0}
    assert telemetry.slowdown("m", 131.0) == {}


def test_models_are_apart() -> None:
    telemetry = Telemetry()
    observe(telemetry, 4.0, 10)
    assert telemetry.slowdown("n", 0.0) == {}


def test_the_overhead_is_what_most_answers_cost_lately() -> None:
    telemetry = Telemetry()
    for _ in range(127):
        telemetry.overhead(2.0, now_s=10.0)
    assert telemetry.overhead_ms(10.0) == OVERHEAD_START_MS
    telemetry.overhead(100.0, now_s=10.0)
    assert telemetry.overhead_ms(10.0) == 2.0
    # What a burst taught is soon forgotten, whether or not anybody is answered meanwhile.
    assert telemetry.overhead_ms(12.1) == OVERHEAD_START_MS
