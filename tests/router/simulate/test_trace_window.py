"""Traces: the windows drawn from them."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.simulate.trace import BadTrace, Counts, Instants
from router.simulate.trace.window import LEAST_BINS, _start, arrivals

instants = (
    st.lists(st.floats(0, 100), min_size=1, max_size=60)
    .filter(lambda gaps: sum(gaps) > 0)
    .map(lambda gaps: Instants("x", (0.0, *(math.fsum(gaps[: n + 1]) for n in range(len(gaps))))))
)
rates = st.floats(0.01, 1e4)


@given(instants, rates, st.integers(1, 100), st.integers())
def test_a_window_of_instants(
    recorded: Instants, rate_per_s: float, requests: int, seed: int
) -> None:
    found = arrivals(recorded, rate_per_s=rate_per_s, requests=requests, rng=random.Random(seed))
    again = arrivals(recorded, rate_per_s=rate_per_s, requests=requests, rng=random.Random(seed))
    assert found == again == sorted(found)
    assert len(found) == min(requests, len(recorded.times))
    assert found[0] == 0.0
    if len(found) > 1:
        assert (len(found) - 1) / found[-1] == pytest.approx(rate_per_s)


def test_the_time_axis_is_stretched_and_nothing_else() -> None:
    recorded = Instants("x", (0.0, 0.0, 1.0, 4.0, 4.0, 10.0))
    whole = arrivals(recorded, rate_per_s=1.0, requests=99, rng=random.Random(0))
    assert whole == [0.0, 0.0, 0.5, 2.0, 2.0, 5.0]
    windows = {
        tuple(arrivals(recorded, rate_per_s=1.0, requests=2, rng=random.Random(seed)))
        for seed in range(50)
    }
    # 0 to 0 and 4 to 4 have no rate and are never drawn.
    assert windows == {(0.0, 1.0)}
    four = {
        tuple(arrivals(recorded, rate_per_s=3.0, requests=4, rng=random.Random(seed)))
        for seed in range(50)
    }
    assert four == {(0.0, 0.0, 0.25, 1.0), (0.0, 0.25, 1.0, 1.0), (0.0, 1 / 3, 1 / 3, 1.0)}


def test_gaps_are_more_than_five_zeros_in_a_row() -> None:
    def stretches(*counts: int) -> tuple[tuple[int, int], ...]:
        return Counts("x", counts).stretches

    assert stretches(1, 0, 0, 0, 0, 0, 1) == ((0, 7),)
    assert stretches(1, 0, 0, 0, 0, 0, 0, 1) == ((0, 1), (7, 8))
    assert stretches(0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) == ((6, 7),)
    assert stretches(0, 1, 0) == ((0, 3),)


bins = st.lists(st.one_of(st.just(0), st.integers(0, 50)), min_size=30, max_size=120)


@given(st.lists(st.tuples(bins, st.integers(6, 20)), min_size=1, max_size=4), st.data())
def test_a_window_of_counts_keeps_out_of_gaps(
    parts: list[tuple[list[int], int]], data: st.DataObject
) -> None:
    recorded = Counts("x", tuple(n for part, gap in parts for n in (*part, *[0] * gap)))
    longest = max((end - first for first, end in recorded.stretches), default=0)
    rate = data.draw(st.floats(0.1, 20))
    requests = data.draw(st.integers(1, 2000))
    seed = data.draw(st.integers())
    if longest < LEAST_BINS:
        with pytest.raises(BadTrace):
            arrivals(recorded, rate_per_s=rate, requests=requests, rng=random.Random(seed))
        return
    found = arrivals(recorded, rate_per_s=rate, requests=requests, rng=random.Random(seed))
    assert found == sorted(found)
    assert found == arrivals(recorded, rate_per_s=rate, requests=requests, rng=random.Random(seed))
    size = min(longest, max(LEAST_BINS, math.ceil(requests / rate)))
    assert all(0 <= time <= size for time in found)
    first = _start(recorded.stretches, size, random.Random(seed))
    window = recorded.counts[first : first + size]
    assert len(window) == size
    assert "0" * 6 not in "".join("1" if count else "0" for count in window)
    assert all(window[min(int(time), size - 1)] for time in found if time % 1)


def test_counts_are_scaled_and_seconds_stay_seconds() -> None:
    recorded = Counts("x", (*[2] * 50, *[6] * 50))
    found = arrivals(recorded, rate_per_s=400.0, requests=40_000, rng=random.Random(3))
    assert len(found) == pytest.approx(40_000, rel=0.02)
    early = sum(time < 50 for time in found)
    assert early == pytest.approx(10_000, rel=0.04)
    # Poisson within a bin: the gaps have a coefficient of variation of 1.
    gaps = [later - sooner for sooner, later in pairwise(found[:early])]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert math.sqrt(variance) / mean == pytest.approx(1.0, abs=0.03)


def test_a_window_of_counts_is_as_long_as_the_requests_need() -> None:
    recorded = Counts("x", (1,) * 1000)

    def span(requests: int) -> float:
        return arrivals(recorded, rate_per_s=50.0, requests=requests, rng=random.Random(1))[-1]

    assert 29 < span(1) < 30
    assert 99 < span(5000) < 100
    assert 999 < span(10**6) < 1000


@pytest.mark.parametrize("bin_s", [0.5, 60.0])
def test_a_window_of_bins_of_another_length(bin_s: float) -> None:
    recorded = Counts("x", (1, 3) * 500, bin_s)
    found = arrivals(recorded, rate_per_s=20.0 / bin_s, requests=10_000, rng=random.Random(1))
    assert len(found) == pytest.approx(10_000, rel=0.03)
    assert 499 * bin_s < found[-1] < 500 * bin_s


def test_every_window_is_drawn() -> None:
    drawn = [_start(((0, 3), (10, 40), (50, 83)), 30, random.Random(n)) for n in range(200)]
    assert set(drawn) == {10, 50, 51, 52, 53}


def test_counts_too_short_for_a_window() -> None:
    with pytest.raises(BadTrace) as caught:
        arrivals(Counts("x", (1,) * 29), rate_per_s=1.0, requests=1, rng=random.Random(0))
    assert caught.value.detail == (
        "x: counts: expected at least 30 bins without more than 5 zeros in a row, got '29 bins'"
    )


@pytest.mark.parametrize("rate_per_s", [0.0, -1.0, math.nan, math.inf, 1e-9])
def test_a_rate_out_of_its_domain(rate_per_s: float) -> None:
    with pytest.raises(BadTrace) as caught:
        arrivals(Instants("x", (0.0, 1.0)), rate_per_s=rate_per_s, requests=1, rng=random.Random(0))
    assert caught.value.detail == (
        f"x: rate_per_s: expected requests per second from 1e-06 to 1e+09, got {rate_per_s!r}"
    )


def test_no_request_asked_for() -> None:
    with pytest.raises(BadTrace) as caught:
        arrivals(Instants("x", (0.0, 1.0)), rate_per_s=1.0, requests=0, rng=random.Random(0))
    assert caught.value.detail == "x: requests: expected 1 or more, got 0"


def test_the_rate_as_recorded_leaves_gaps_out() -> None:
    assert Counts("x", (4, 2, *[0] * 10, 3, 3)).rate_per_s == 3.0
    assert Instants("x", (0.0, 1.0, 4.0)).rate_per_s == 0.5
