"""Quotas: laws of the bucket, whoever takes from it, and which limit refuses with what words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.quota import (
    Bucket,
    Limits,
    day_left_s,
    day_of,
    full,
    refilled,
    refusal,
    taken,
)

rates = st.floats(0.1, 1000)
bursts = st.integers(1, 100)
gaps = st.lists(st.floats(0, 10), min_size=1, max_size=60)


@given(rates, bursts, gaps)
def test_no_more_get_in_than_the_burst_and_what_the_time_brought(
    rate: float, burst: int, gaps: list[float]
) -> None:
    limits = Limits(requests_per_second=rate, burst=burst)
    bucket, now_s, admitted = full(limits, 0.0), 0.0, 0
    for gap in gaps:
        now_s += gap
        bucket = refilled(bucket, limits, now_s)
        if refusal(limits, bucket, 0, 0.0, 0.0) is None:
            bucket = taken(bucket, 1)
            admitted += 1
        assert bucket.level >= 0
        assert admitted <= burst + rate * now_s + 1e-6


@given(rates, bursts, st.floats(-200, 0.999))
def test_who_waits_as_long_as_told_gets_in_and_not_before(
    rate: float, burst: int, level: float
) -> None:
    limits = Limits(requests_per_second=rate, burst=burst)
    refused = refusal(limits, Bucket(level, 5.0), 0, 0.0, 0.0)
    assert refused is not None
    assert refused.limit == "requests_per_second"
    early = refilled(Bucket(level, 5.0), limits, 5.0 + 0.99 * refused.retry_after_s)
    assert refusal(limits, early, 0, 0.0, 0.0) is not None
    later = refilled(Bucket(level, 5.0), limits, 5.0 + 1.001 * refused.retry_after_s)
    assert refusal(limits, later, 0, 0.0, 0.0) is None


@given(rates, bursts, st.integers(2, 8), st.integers(1, 200))
def test_several_processes_that_tell_each_other_keep_one_rate(
    rate: float, burst: int, processes: int, seconds: int
) -> None:
    """Each admits what it can, and each second takes what the others admitted from its own."""
    limits = Limits(requests_per_second=rate, burst=burst)
    buckets = [full(limits, 0.0)] * processes
    total = 0
    for second in range(seconds):
        admitted = []
        for number, old in enumerate(buckets):
            bucket = refilled(old, limits, float(second))
            count = int(max(0.0, bucket.level))
            buckets[number] = taken(bucket, count)
            admitted.append(count)
        total += sum(admitted)
        for number, bucket in enumerate(buckets):
            buckets[number] = taken(bucket, sum(admitted) - admitted[number])
    # One exchange may come too late for each: never more than every one's own burst on top.
    assert total <= processes * burst + rate * seconds + 1e-6


def test_a_clock_that_goes_back_fills_nothing() -> None:
    limits = Limits(requests_per_second=10, burst=5)
    assert refilled(Bucket(2.0, 100.0), limits, 50.0) == Bucket(2.0, 50.0)


def test_without_limits_everything_gets_in() -> None:
    limits = Limits()
    bucket = taken(full(limits, 0.0), 1e9)
    assert refusal(limits, refilled(bucket, limits, 0.0), 10**6, 1e9, 0.0) is None


def test_the_burst_is_a_second_s_worth_and_at_least_one() -> None:
    assert Limits(requests_per_second=50).depth == 50
    assert Limits(requests_per_second=0.1).depth == 1
    assert Limits(requests_per_second=50, burst=5).depth == 5


def test_which_limit_refuses_and_in_what_words() -> None:
    limits = Limits(requests_per_second=2, burst=3, concurrency=4, budget_usd_per_day=0.5)
    plenty, empty = Bucket(3.0, 0.0), Bucket(0.0, 0.0)
    assert refusal(limits, plenty, 3, 0.49, 0.0) is None
    spent = refusal(limits, plenty, 0, 0.5, 86_400 + 3600)
    assert spent is not None
    assert (spent.limit, spent.retry_after_s) == ("budget_usd_per_day", 23 * 3600)
    assert "0.5 of 0.5 USD" in spent.why
    at_once = refusal(limits, plenty, 4, 0.0, 0.0)
    assert at_once is not None
    assert at_once.why == "4 requests of this key run, of 4 at once"
    rate = refusal(limits, empty, 0, 0.0, 0.0)
    assert rate is not None
    assert rate.retry_after_s == 0.5
    assert rate.why == "more than 2 requests per second, 3 at once after a pause"


def test_days_are_by_utc() -> None:
    assert day_of(0) == "1970-01-01"
    assert day_of(86_399.9) == "1970-01-01"
    assert day_of(86_400) == "1970-01-02"
    assert day_left_s(86_400) == 86_400
    assert day_left_s(86_399) == 1
