"""Scores: the definitions, on outcomes counted by hand; and the file they are written to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.simulate.replay import Outcome
from router.simulate.score import (
    COLUMNS,
    Figure,
    Line,
    as_csv,
    from_csv,
    over_seeds,
    score,
    share_of_gain,
    windows,
)
from tests.router.simulate.workloads import workload

MENUS = workload().menus
MODELS = ["model"]


def outcome(
    at_s: float, variant: str = "", kept: bool = False, verdict: str = "", lane_ms: float = 0.0
) -> Outcome:
    return Outcome(at_s, 0, variant, 1.0, 1.0, kept, verdict or "answered", lane_ms)


FIVE = [
    outcome(0.0, "fp32", True, lane_ms=2.0),
    outcome(1.0, "tiny-int8", True, lane_ms=0.1),
    outcome(2.0, "fp32", False, "late", lane_ms=2.0),
    outcome(3.0, verdict="overloaded"),
    outcome(4.0, "fp32", True, lane_ms=4.0),
]


def test_late_and_refused_count_in_one_accuracy_and_not_in_the_other() -> None:
    found = score(FIVE, MODELS, MENUS)
    assert found.attainment == 3 / 5
    assert found.effective_accuracy_all == pytest.approx((0.935 + 0.88 + 0.935) / 5)
    assert found.effective_accuracy_answered == pytest.approx((0.935 + 0.88 + 0.935) / 3)
    # USD 0.05 an hour is USD 0.05 / 3.6 per million ms.
    assert found.cost_usd_per_million == pytest.approx(6.1 / 3 * 0.05 / 3.6)
    assert found.answers == {("model", "fp32"): 2, ("model", "tiny-int8"): 1}
    assert found.verdicts == {"answered": 3, "late": 1, "overloaded": 1}


def test_nothing_answered_has_no_accuracy_and_no_cost() -> None:
    found = score([outcome(0.0, verdict="overloaded")], MODELS, MENUS)
    assert (found.attainment, found.effective_accuracy_all) == (0, 0)
    assert math.isnan(found.effective_accuracy_answered) and math.isnan(found.cost_usd_per_million)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_windows_come_to_the_whole(count: int) -> None:
    whole, parts = score(FIVE, MODELS, MENUS), windows(FIVE, MODELS, MENUS, count)
    assert len(parts) == count and (parts[0].from_s, parts[-1].to_s) == (0.0, pytest.approx(4.0))
    assert sum(part.requests for part in parts) == 5
    assert sum(part.answered for part in parts) == 3
    assert sum(part.accuracy for part in parts) / 5 == pytest.approx(whole.effective_accuracy_all)
    assert sum(part.usd_per_million for part in parts) / 3 == pytest.approx(
        whole.cost_usd_per_million
    )


def test_requests_that_all_come_at_once_are_in_one_window() -> None:
    parts = windows([outcome(1.0), outcome(1.0)], MODELS, MENUS, 3)
    assert [part.requests for part in parts] == [2, 0, 0]


def test_the_interval_is_students() -> None:
    # Of 1, 2, 3: deviation 1, and t of two degrees of freedom is 4.303.
    assert over_seeds([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.303 / math.sqrt(3)))
    assert over_seeds([0.0, 2.0] * 50).half == pytest.approx(
        1.96 * math.sqrt(100 / 99) / 10, rel=1e-6
    )
    assert math.isnan(over_seeds([1.0]).half)


def test_the_share_of_the_gain_is_of_what_the_bound_has_over_the_best_single_one() -> None:
    assert share_of_gain([0.92], [0.90], [0.94]) == pytest.approx(
        Figure(0.5, math.nan), nan_ok=True
    )
    assert share_of_gain([0.92, 0.91], [0.90, 0.90], [0.94, 0.92]) == pytest.approx((0.5, 0.0))
    assert share_of_gain([0.9, 0.9], [0.9, 0.9], [0.9019, 0.9019]) is None
    assert share_of_gain([0.88], [0.90], [0.94]).mean < 0  # type: ignore[union-attr]


NUMBERS = st.floats(allow_infinity=False)
LINES = st.builds(
    Line,
    trace=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1),
    load=st.floats(0.01, 100),
    lanes=st.integers(1, 64),
    seed=st.integers(1, 100),
    policy=st.sampled_from(["gearshift", "static:int8", 'a "quoted", one']),
    attainment=NUMBERS,
    effective_accuracy_all=NUMBERS,
    effective_accuracy_answered=NUMBERS,
    cost_usd_per_million=NUMBERS,
    bound=NUMBERS,
)


@given(st.lists(LINES))
def test_csv_holds_every_figure_in_full(lines: list[Line]) -> None:
    text = as_csv(lines)
    assert text.splitlines()[0] == (
        "trace,load,lanes,seed,policy,attainment,effective_accuracy_all,"
        "effective_accuracy_answered,cost_usd_per_million,bound"
    )
    assert repr(from_csv(text)) == repr(lines)


def test_another_header_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the columns trace, load"):
        from_csv("a,b\n")
    assert COLUMNS[-1] == "bound"
