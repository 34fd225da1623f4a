"""What became of a deadline: the one rule that metrics and the console count by."""

from __future__ import annotations

import pytest

from router import deadlines
from router.constraints import Constraints
from router.errors import (
    BudgetSpent,
    CallerLeft,
    DeadlinePassed,
    EngineFailed,
    GearshiftError,
    NotReady,
    Overloaded,
    RateLimited,
    Unsatisfiable,
)

ASKED = Constraints(max_latency_ms=20)
DEFAULT = Constraints(max_latency_ms=100)


@pytest.mark.parametrize(
    ("constraints", "default", "expected"),
    [
        (ASKED, DEFAULT, 20),
        (ASKED, Constraints(), 20),
        (Constraints(), DEFAULT, 100),
        (Constraints(priority="high"), DEFAULT, 100),
        (Constraints(optimize="cost"), DEFAULT, None),
        (Constraints(), Constraints(), None),
        (None, DEFAULT, None),
    ],
)
def test_whose_deadline_it_is(
    constraints: Constraints | None, default: Constraints, expected: float | None
) -> None:
    assert deadlines.limit_ms(constraints, default) == expected


def test_an_answer_is_in_time_or_late() -> None:
    assert deadlines.of_answer(0.02, 20) == "kept"
    assert deadlines.of_answer(0.0201, 20) == "relaxed"


@pytest.mark.parametrize(
    ("error", "limit_ms", "total_s", "expected"),
    [
        (DeadlinePassed("late"), 20, 0.02, "missed"),
        (Overloaded("full", 1.0), 20, 0.0, "shed"),
        (Overloaded("full", 1.0), None, 0.0, None),
        (RateLimited("fast", 1.0), 20, 0.0, None),
        (BudgetSpent("spent", 1.0), 20, 0.0, None),
        (Unsatisfiable("none"), 20, 0.0, None),
        (NotReady("starting"), None, 0.0, None),
        (NotReady("starting"), 20, 0.0, "broken"),
        (EngineFailed("NaN"), 20, 0.001, "broken"),
        (GearshiftError("unexpected"), 20, 0.0, "broken"),
        (CallerLeft("gone"), 20, 0.018, "missed"),
        (CallerLeft("gone"), 20, 0.0179, None),
        (CallerLeft("gone"), None, 60.0, None),
    ],
)
def test_what_an_error_makes_of_a_deadline(
    error: GearshiftError, limit_ms: float | None, total_s: float, expected: str | None
) -> None:
    assert deadlines.of_failure(error, limit_ms, total_s) == expected
