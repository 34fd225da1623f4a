"""How fuzzing tells a case that hangs from a machine that stalls."""

from __future__ import annotations

from random import Random

import pytest

from router.errors import InvalidRequest
from tests.drills.fuzz import cases
from tests.drills.fuzz.cases import Fault, run


class Clock:
    """Seconds that pass only where a case says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def slow(clock: Clock, *took_s: float) -> cases.Case:
    """A case that takes these times, one after the other, and then none."""
    left = list(took_s)

    def case(_dice: Random) -> str:
        clock.now_s += left.pop(0) if left else 0.0
        return "read"

    return case


def test_one_stall_of_the_machine_is_no_fault() -> None:
    clock = Clock()
    tally = run("x", slow(clock, 5.0, 0.1), seed=1, numbers=range(3), clock_s=clock)
    assert (tally.faults, tally.cases, tally.slowest_s) == ([], 3, pytest.approx(0.1))


def test_a_case_that_is_slow_each_time_is_a_fault() -> None:
    clock = Clock()
    tally = run("x", slow(clock, 5.0, 4.0, 3.0), seed=1, numbers=range(1), clock_s=clock)
    assert tally.faults == ["0: took 3.0 s"]
    assert (tally.cases, tally.slowest_s) == (1, 3.0)


def test_a_clear_refusal_is_no_fault_and_anything_else_is() -> None:
    def case(dice: Random) -> str:
        match int(dice.random() * 3):
            case 0:
                raise InvalidRequest("field", 1, "another")
            case 1:
                raise Fault("500")
            case _:
                raise KeyError("crash")

    tally = run("x", case, seed=1, numbers=range(60))
    assert set(tally.outcomes) == {"invalid-request", "fault"}
    assert len(tally.faults) == tally.outcomes["fault"]
    assert any("500" in fault for fault in tally.faults)
    assert any("KeyError" in fault for fault in tally.faults)
