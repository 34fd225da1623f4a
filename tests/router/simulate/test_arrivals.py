"""Synthetic arrivals: laws that hold for every process, each one's own shape, every refusal."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.simulate.arrivals import arrivals, parse
from router.simulate.trace import BadTrace

SPECS = (
    "poisson",
    "gamma",
    "gamma:cv=0.2",
    "diurnal",
    "diurnal:depth=1,cycles=7",
    "spike",
    "spike:height=20,share=0.05",
    "map",
    "map:ratio=20,share=0.1,dwell=30",
)


def drawn(spec: str, requests: int, *, rate_per_s: float = 100.0, seed: int = 0) -> list[float]:
    return arrivals(spec, rate_per_s=rate_per_s, requests=requests, rng=random.Random(seed))


def gaps(times: list[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise([0.0, *times])]


def variation(values: list[float]) -> float:
    """The coefficient of variation."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)) / mean


@given(st.sampled_from(SPECS), st.floats(1e-3, 1e5), st.integers(1, 300), st.integers())
def test_as_many_as_asked_for_in_order_and_the_same_again(
    spec: str, rate_per_s: float, requests: int, seed: int
) -> None:
    times = drawn(spec, requests, rate_per_s=rate_per_s, seed=seed)
    assert len(times) == requests
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < math.inf
    assert times == drawn(spec, requests, rate_per_s=rate_per_s, seed=seed)


@given(st.sampled_from(SPECS), st.integers(-8, 8), st.integers())
def test_the_rate_is_a_scale_of_time(spec: str, power: int, seed: int) -> None:
    at_one = drawn(spec, 50, rate_per_s=1.0, seed=seed)
    scaled = drawn(spec, 50, rate_per_s=2.0**power, seed=seed)
    assert scaled == pytest.approx([time / 2.0**power for time in at_one])


@pytest.mark.parametrize("spec", SPECS)
def test_the_mean_rate_is_the_one_asked_for(spec: str) -> None:
    lengths = [drawn(spec, 1000, seed=seed)[-1] for seed in range(400)]
    mean_s = math.fsum(lengths) / len(lengths)
    # Three standard errors of the mean, measured.
    error_s = 3.0 * variation(lengths) * mean_s / math.sqrt(len(lengths))
    assert abs(mean_s - 10.0) < error_s + 0.02
    assert error_s < 1.2


@pytest.mark.parametrize("cv", [0.2, 1.0, 2.0, 4.0])
def test_gamma_varies_as_asked(cv: float) -> None:
    assert variation(gaps(drawn(f"gamma:cv={cv}", 50_000))) == pytest.approx(cv, rel=0.05)


def test_poisson_varies_as_an_exponential() -> None:
    assert variation(gaps(drawn("poisson", 50_000))) == pytest.approx(1.0, rel=0.02)


def test_a_gamma_of_one_is_poisson_in_distribution() -> None:
    long = [gap > 0.02 for gap in gaps(drawn("gamma:cv=1", 50_000))]
    assert sum(long) / len(long) == pytest.approx(math.exp(-2), rel=0.03)


def test_diurnal_swings_from_the_trough_on() -> None:
    times = drawn("diurnal:depth=0.8,cycles=2", 40_000)
    by_tenth = [sum(40 * n <= time < 40 * (n + 1) for time in times) for n in range(10)]
    # Ten tenths of two cycles: five to a cycle, lowest at either end and highest in its middle.
    mean = [
        4000 * (1 - 0.8 * (math.sin(0.4 * math.pi * (n + 1)) - math.sin(0.4 * math.pi * n))
                / (0.4 * math.pi))
        for n in range(10)
    ]  # fmt: skip
    assert by_tenth[:-1] == pytest.approx(mean[:-1], rel=0.08)


def test_a_spike_stands_in_the_middle() -> None:
    times = drawn("spike:height=4,share=0.1", 50_000)
    inside = sum(0.45 * 500 <= time < 0.55 * 500 for time in times)
    before = sum(time < 0.45 * 500 for time in times)
    assert inside / 0.1 == pytest.approx(4 * before / 0.45, rel=0.05)
    flat = drawn("spike:height=1", 20_000)
    assert variation(gaps(flat)) == pytest.approx(1.0, rel=0.02)


def test_a_map_is_busy_for_a_while() -> None:
    """Counts spread as the cookbook says: index of dispersion of a two-state MMPP over time t."""
    ratio, share, dwell, rate, window_s = 8.0, 0.25, 100.0, 100.0, 5.0
    times = drawn("map", 400_000)
    windows = int(times[-1] / window_s)
    counts = [0] * (windows + 1)
    for time in times:
        counts[int(time / window_s)] += 1
    counts = counts[:windows]
    mean = sum(counts) / windows
    dispersion = sum((count - mean) ** 2 for count in counts) / windows / mean
    quiet = rate / (1 - share + share * ratio)
    leave_busy, leave_quiet = rate / dwell, rate / dwell * share / (1 - share)
    total = leave_busy + leave_quiet
    spread = 2 * leave_busy * leave_quiet * (quiet * ratio - quiet) ** 2
    spread /= total**2 * (quiet * ratio * leave_quiet + quiet * leave_busy)
    decay = (1 - math.exp(-total * window_s)) / (total * window_s)
    assert dispersion == pytest.approx(1 + spread * (1 - decay), rel=0.1)
    # Memory, which a renewal process has not: neighbouring gaps are alike.
    near = gaps(times)
    mean_gap = math.fsum(near) / len(near)
    covariance = math.fsum((a - mean_gap) * (b - mean_gap) for a, b in pairwise(near)) / len(near)
    assert covariance / (variation(near) * mean_gap) ** 2 > 0.1


def test_spaces_do_not_matter() -> None:
    spaced = drawn(" spike : height = 3 , share = 0.2 ", 50)
    assert spaced == drawn("spike:share=0.2,height=3", 50)
    assert drawn("spike", 50) == drawn("spike:height=4,share=0.1", 50)


@pytest.mark.parametrize(
    ("spec", "detail"),
    [
        ("", "process: expected one of poisson, gamma, diurnal, spike, map, got ''"),
        ("Poisson", "process: expected one of poisson, gamma, diurnal, spike, map, got 'Poisson'"),
        ("poisson:cv=2", "poisson key: expected no keys, got 'cv'"),
        ("gamma:cvs=2", "gamma key: expected one of cv, got 'cvs'"),
        ("gamma:", "gamma key: expected one of cv, got ''"),
        ("diurnal:depth=1,,", "diurnal key: expected one of depth, cycles, got ''"),
        ("gamma:cv", "cv: expected a number from 0.01 to 20, got ''"),
        ("gamma:cv=high", "cv: expected a number from 0.01 to 20, got 'high'"),
        ("gamma:cv=0", "cv: expected a number from 0.01 to 20, got '0'"),
        ("gamma:cv=nan", "cv: expected a number from 0.01 to 20, got 'nan'"),
        ("gamma:cv=1_0", "cv: expected a number from 0.01 to 20, got '1_0'"),
        ("gamma:cv=1,cv=1", "cv: expected cv once, got '1'"),
        ("diurnal:depth=1.5", "depth: expected a number from 0 to 1, got '1.5'"),
        ("diurnal:cycles=1.5", "cycles: expected a whole number from 1 to 1000, got '1.5'"),
        ("diurnal:cycles=0", "cycles: expected a whole number from 1 to 1000, got '0'"),
        ("spike:height=1e3", "height: expected a number from 1 to 100, got '1e3'"),
        ("spike:share=1", "share: expected a number from 0.001 to 0.999, got '1'"),
        ("map:ratio=0.5", "ratio: expected a number from 1 to 1000, got '0.5'"),
        ("map:dwell=-1", "dwell: expected a number from 1 to 1e+06, got '-1'"),
        ("map:dwell=1e9999", "dwell: expected a number from 1 to 1e+06, got '1e9999'"),
    ],
)
def test_a_spec_that_is_refused(spec: str, detail: str) -> None:
    with pytest.raises(BadTrace) as caught:
        parse(spec)
    assert caught.value.detail == f"arrivals {spec!r}: {detail}"


def test_a_rate_and_a_number_out_of_their_domains() -> None:
    with pytest.raises(BadTrace, match=r"^poisson: rate_per_s: expected requests per second from "):
        drawn("poisson", 5, rate_per_s=0.0)
    with pytest.raises(BadTrace, match=r"^poisson: requests: expected 1 or more, got 0$"):
        drawn("poisson", 0)


@given(st.text(st.sampled_from("poisngamdurlke:=,.0123456789cv "), max_size=30))
def test_any_text_is_a_process_or_a_refusal(spec: str) -> None:
    try:
        process = parse(spec)
    except BadTrace:
        return
    assert len(process(rate_per_s=1.0, requests=3, rng=random.Random(0))) == 3
