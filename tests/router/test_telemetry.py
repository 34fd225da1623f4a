"""What finished batches and answers teach, and what is forgotten."""

from __future__ import annotations

import pytest

from router.telemetry import OVERHEAD_START_MS, Telemetry


def observe(
    telemetry: Telemetry, ratio: float, times: int, now_s: float = 0.0, model: str = "m"
) -> None:
    """Batches that take `ratio` times what their card says at the median."""
    for _ in range(times):
        telemetry.batch(
            model, "v", expected_ms=2.0, promised_ms=2.5, actual_ms=2.0 * ratio, now_s=now_s
        )


def slowdown(telemetry: Telemetry, now_s: float = 0.0, model: str = "m") -> float:
    return telemetry.slowdown(model, ["v"], now_s)["v"]


def test_a_few_batches_prove_nothing() -> None:
    telemetry = Telemetry()
    observe(telemetry, 100.0, 1)
    observe(telemetry, 1.0, 50)
    observe(telemetry, 100.0, 1)
    assert slowdown(telemetry) == pytest.approx(1.0)
    assert telemetry.tail(0.0) == 1.0


def test_a_machine_that_slowed_down_is_soon_believed_to_be_slow() -> None:
    telemetry = Telemetry()
    observe(telemetry, 1.0, 40)
    assert slowdown(telemetry) == pytest.approx(1.0)
    observe(telemetry, 4.0, 8)
    assert slowdown(telemetry) == pytest.approx(4.0)
    # What has not run since is slower too.
    assert slowdown(telemetry, model="n") == pytest.approx(4.0)


def test_after_a_quiet_while_the_card_is_believed_again() -> None:
    telemetry = Telemetry()
    observe(telemetry, 4.0, 10, now_s=100.0)
    assert slowdown(telemetry, 129.0) == pytest.approx(4.0)
    assert slowdown(telemetry, 131.0) == 1.0


def test_the_tail_is_what_batches_take_beyond_what_was_promised() -> None:
    telemetry = Telemetry(95)
    for _ in range(30):
        observe(telemetry, 1.0, 9)
        observe(telemetry, 2.5, 1)
    assert telemetry.tail(0.0) == pytest.approx(2.0)


def test_the_tail_is_forgotten_after_a_quiet_while() -> None:
    """Or requests that it turns away would never be let in again: they teach nothing."""
    telemetry = Telemetry(95)
    for _ in range(30):
        observe(telemetry, 1.0, 9)
        observe(telemetry, 2.5, 1)
    assert telemetry.tail(29.0) > 1
    assert telemetry.tail(31.0) == 1.0
    observe(telemetry, 1.0, 1, now_s=31.0)
    assert telemetry.tail(31.0) == 1.0


def test_the_margin_covers_what_predictions_err_by() -> None:
    telemetry = Telemetry()
    assert telemetry.margin(True, 0.0) == 1.0
    for _ in range(200):
        telemetry.answer(True, 10.0, 10.0, 13.0, "success", 1.0)
    assert telemetry.margin(True, 1.0) == pytest.approx(1.3)
    # Who finds a lane free is another matter.
    assert telemetry.margin(False, 1.0) == 1.0
    # What was learnt of a burst is soon forgotten.
    assert telemetry.margin(True, 3.1) == 1.0


def test_a_dropped_request_took_at_least_its_age_and_an_ignored_one_tells_nothing() -> None:
    telemetry = Telemetry()
    for _ in range(200):
        telemetry.answer(False, 10.0, 10.0, 10.0, "success", 1.0)
        telemetry.answer(False, 10.0, 10.0, 90.0, "ignored", 1.0)
    assert telemetry.margin(False, 1.0) == pytest.approx(1.0)
    for _ in range(20):
        telemetry.answer(False, 10.0, 10.0, 40.0, "dropped", 1.0)
    assert telemetry.margin(False, 1.0) == pytest.approx(4.0)


def test_the_overhead_is_what_most_answers_cost_lately() -> None:
    telemetry = Telemetry()
    for _ in range(127):
        telemetry.overhead(2.0, now_s=10.0)
    assert telemetry.overhead_ms(10.0) == OVERHEAD_START_MS
    telemetry.overhead(100.0, now_s=10.0)
    assert telemetry.overhead_ms(10.0) == 2.0
    # What a burst taught is soon forgotten, whether or not anybody is answered meanwhile.
    assert telemetry.overhead_ms(12.1) == OVERHEAD_START_MS


def test_the_tail_of_another_speed_is_forgotten() -> None:
    """Else a starved machine's stalls turned tight deadlines away long after they had ended."""
    telemetry, now_s = Telemetry(), 0.0
    for number in range(600):
        now_s += 0.01
        telemetry.batch("m", "v", 10.0, 12.0, 200.0 if number % 20 == 0 else 40.0, now_s)
    assert telemetry.tail(now_s) > 2.0
    for _ in range(40):
        now_s += 0.01
        telemetry.batch("m", "v", 10.0, 12.0, 10.0, now_s)
    assert telemetry.tail(now_s) == 1.0
