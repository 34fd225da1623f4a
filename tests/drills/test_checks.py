"""The drills' checks: what each has to be, and that it is missed where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.drills import idle, overload, rollout, soak
from tests.drills.openloop import LOST, UNSENT, Fate
from tests.drills.report import Check, passed


def missed(checks: Sequence[Check]) -> list[str]:
    return [check.what for check in checks if not check.good]


HOT = overload.Report(
    offered=10_000,
    offered_per_s=1000.0,
    goodput_per_s=95.0,
    in_time=950,
    refused=9040,
    late=10,
    failed=0,
    answer_p99_ms=300.0,
    refusal_p50_ms=1.0,
    refusal_p99_ms=10.0,
    refusal_most_ms=40.0,
    refused_at_once=0.99,
    lag_p99_ms=0.5,
)
FLAT = [100.0] * 10 + [105.0] * 10 + [107.0] * 10
OUTCOME = overload.Outcome(
    times=10.0,
    seconds=10.0,
    peak_per_s=100.0,
    before=HOT,
    hot=HOT,
    megabytes=FLAT,
    recovered=True,
    late_again_ms=100.0,
)


def test_an_overload_at_its_limits_passes() -> None:
    assert passed(OUTCOME.checks())


@pytest.mark.parametrize(
    ("hot", "outcome", "what"),
    [
        ({"goodput_per_s": 94.9}, {}, "answered in time"),
        ({"refusal_p99_ms": 10.1}, {}, "refused"),
        ({"late": 11}, {}, "late"),
        ({"failed": 1}, {}, "failed"),
        ({}, {"megabytes": [*FLAT[:20], *[107.1] * 10]}, "memory"),
        ({}, {"recovered": False}, "2 s after"),
    ],
)
def test_an_overload_beyond_one_limit_misses_it(
    hot: dict[str, Any], outcome: dict[str, Any], what: str
) -> None:
    assert missed(replace(OUTCOME, hot=replace(HOT, **hot), **outcome).checks()) == [what]


def test_each_request_of_an_overload_is_counted_once() -> None:
    # Sent 0.1 s late, which is not the server's: answered just before 0.4 s from then, and after.
    status = np.array([200, 200, 504, 429, 429, 500, LOST, UNSENT])
    took_s = np.array([0.49, 0.51, 0.4, 0.001, 0.02, 0.1, 0.1, 0.0])
    due_s = np.zeros(8)
    fate = Fate(np.zeros(8, np.int64), due_s, due_s + 0.1, took_s, status)
    told = overload.report(fate, seconds=2.0, deadline_ms=400.0)
    assert (told.in_time, told.late, told.refused, told.failed) == (1, 2, 2, 3)
    assert (told.offered, told.offered_per_s, told.goodput_per_s) == (8, 4.0, 0.5)
    assert (told.refusal_most_ms, told.refused_at_once) == (20.0, 0.5)


def seen(**last: float) -> soak.Seen:
    """What a soak saw of quantities that stay, or rise evenly to what is said of them."""
    found = soak.Seen(outcomes={"ok": 7, "overloaded": 2}, left=1, disturbed={"swap": 3})
    for name in soak.TOLERANCES:
        rise = last.get(name.replace(" ", "_"), 0.0)
        found.samples[name] = [(float(at), 100.0 + rise * at / 99) for at in range(100)]
    return found


def test_a_soak_that_stays_level_passes() -> None:
    checks = soak.checks([], seen())
    assert passed(checks)
    assert [check.found for check in checks][:3] == ["9: ok 7, overloaded 2", "1", "swap 3"]


@pytest.mark.parametrize("what", soak.TOLERANCES)
def test_a_soak_in_which_something_grows_misses_that(what: str) -> None:
    grown = seen(**{what.replace(" ", "_"): 1.5 * soak.TOLERANCES[what]})
    wrong = soak.leaks(grown)
    assert len(wrong) == 1 and wrong[0].startswith(what)
    assert missed(soak.checks(wrong, grown)) == [what]


def test_a_soak_whose_counts_do_not_add_up_misses_them() -> None:
    checks = soak.checks(["ok: clients saw 2, the server counted 1"], seen())
    assert missed(checks) == ["counts of clients and server"]
    assert "clients saw 2" in checks[-1].found


IDLE: dict[str, Any] = {
    "wanted": 10_000,
    "count": 900,
    "most": 1500,
    "good": idle.ASKED,
    "before_ms": 1.0,
    "during_ms": 9.0,
    "gone": 0,
}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({}, []),
        ({"good": idle.ASKED - 1}, ["live requests answered"]),
        ({"gone": 1}, ["idle connections that were closed"]),
    ],
)
def test_idle_connections(changed: dict[str, int], what: list[str]) -> None:
    assert missed(idle.checks(**{**IDLE, **changed})) == what


STEP = rollout.Step("both serve", 5.0, 100, {}, 1.0, 9.0)


@pytest.mark.parametrize(
    ("steps", "good"),
    [
        ([STEP], True),
        ([STEP, replace(STEP, requests=0)], True),
        ([STEP, replace(STEP, failed={("grpc", "UNAVAILABLE"): 1})], False),
        ([replace(STEP, requests=0)], False),
        ([], False),
    ],
)
def test_a_roll_out_passes_where_requests_were_sent_and_none_failed(
    steps: list[rollout.Step], good: bool
) -> None:
    assert rollout.passed(steps) == good
