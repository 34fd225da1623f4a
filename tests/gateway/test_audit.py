"""The audit of a soak: it finds what does not add up, and what grows."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.drills.audit import LEFT, accounts, at_rest, grows

COUNTS = st.dictionaries(st.sampled_from(["ok", "overloaded", "engine-failed"]), st.integers(1, 99))


@given(COUNTS)
def test_counts_that_agree(counts: dict[str, int]) -> None:
    assert accounts(counts, counts) == []


@given(COUNTS, st.sampled_from(["ok", "overloaded", "not-ready"]), st.sampled_from([-1, 1]))
def test_one_request_lost_or_counted_twice_is_found(
    counts: dict[str, int], outcome: str, off: int
) -> None:
    server = Counter(counts)
    server[outcome] += off
    assert accounts(counts, server)


def test_a_request_counted_under_another_outcome_is_found() -> None:
    assert len(accounts({"ok": 2}, {"ok": 1, "engine-failed": 1})) == 2


@given(COUNTS, st.integers(0, 9))
def test_who_left_may_have_been_counted_as_anything(counts: dict[str, int], left: int) -> None:
    assert accounts({LEFT: left}, {}) == []
    server = {**counts, "caller-left": left}
    assert accounts({**counts, LEFT: left}, server) == []
    server["caller-left"] += 1
    assert accounts({**counts, LEFT: left}, server)


def test_gauges_at_rest() -> None:
    assert at_rest({"a": 0.0}) == []
    assert at_rest({"a": 0.0, "b": 2.0}) == ["b is 2 at rest"]


@given(st.integers(0, 99))
def test_noise_and_bursts_are_no_growth(seed: int) -> None:
    dice = Random(seed)
    samples = [(s / 2, 100 + dice.gauss(0, 2) + 50 * (dice.random() < 0.05)) for s in range(200)]
    assert grows(samples, 3.0) == 0.0


def test_what_fills_at_first_has_not_grown_but_what_goes_on_has() -> None:
    fills = [(float(s), 100 + min(s, 40)) for s in range(100)]
    assert grows(fills, 5.0) == 0.0
    leaks = [(float(s), 100 + s / 5 + s % 3) for s in range(100)]
    assert 10.0 < grows(leaks, 5.0) < 20.0
    assert grows(leaks, 50.0) == 0.0
