"""How fuzzing tells a case that hangs from a machine that stalls."""

from __future__ import annotations

from random import Random

import pytest

from router.errors import InvalidRequest
from tests.drills.fuzz import KINDS, anything, cases
from tests.drills.fuzz.__main__ import kinds_of, main
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
    assert (tally.faults, tally.cases, tally.stalled) == ([], 3, 1)
    assert tally.slowest_s == 5.0, "what was slow once is told all the same"


def test_a_case_that_is_slow_each_time_is_a_fault() -> None:
    clock = Clock()
    tally = run("x", slow(clock, 5.0, 4.0, 3.0), seed=1, numbers=range(1), clock_s=clock)
    assert tally.faults == ["0: took 3.0 s, slow 3 times"]
    assert (tally.cases, tally.slowest_s, tally.stalled) == (1, 5.0, 0)


def test_a_case_that_is_slow_twice_is_no_fault() -> None:
    clock = Clock()
    tally = run("x", slow(clock, 5.0, 4.0, 0.5), seed=1, numbers=range(1), clock_s=clock)
    assert (tally.faults, tally.slowest_s, tally.stalled) == ([], 5.0, 1)


def test_a_case_that_is_slow_and_wrong_is_one_fault() -> None:
    clock = Clock()

    def case(_dice: Random) -> str:
        clock.now_s += 2.0
        raise Fault("500")

    tally = run("x", case, seed=1, numbers=range(1), clock_s=clock)
    assert tally.faults == ["0: 500; took 2.0 s, slow 3 times"]
    assert tally.outcomes == {"fault": 1}


def test_what_is_wrong_only_when_it_is_run_again_is_a_fault() -> None:
    clock, left = Clock(), [5.0]

    def case(_dice: Random) -> str:
        if not left:
            raise KeyError("crash")
        clock.now_s += left.pop()
        return "read"

    tally = run("x", case, seed=1, numbers=range(1), clock_s=clock)
    assert len(tally.faults) == 1 and "KeyError" in tally.faults[0]
    assert tally.outcomes == {"read": 1}


@pytest.mark.parametrize("named", ["jsonn", "json,", "", "json,nobody"])
def test_a_kind_that_is_none_is_refused(named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--kinds", named])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "argument --kinds: no such kind" in told and "headers, json, bytes" in told


def test_kinds_are_named_by_comma() -> None:
    assert kinds_of("json, rest") == {"json", "rest"}
    assert kinds_of(",".join(KINDS)) == set(KINDS)


@pytest.mark.parametrize("wrong", [InvalidRequest("x", 1, "y"), KeyError("crash")])
def test_what_hypothesis_thinks_of_is_judged_alike(
    wrong: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: object) -> str:
        raise wrong

    monkeypatch.setattr(anything, "decoded", decoded)
    monkeypatch.setattr(anything.constraints, "parse", lambda _: None)
    tally = anything.hypothesis_cases(20, seed=1)
    assert tally.cases >= 10
    assert bool(tally.faults) == isinstance(wrong, KeyError)


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
