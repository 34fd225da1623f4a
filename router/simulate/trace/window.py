"""Windows: stretches of a trace, drawn at random and brought to the rate of a replay."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from router.simulate.trace import LONGEST_SILENCE, Counts, Instants, Trace, bad

# Bins of a window, at least: fewer show no change of rate.
LEAST_BINS = 30
# Beyond any service, and within what float arithmetic on times can bear.
LEAST_RATE_PER_S, MOST_RATE_PER_S = 1e-6, 1e9


def arrivals(trace: Trace, *, rate_per_s: float, requests: int, rng: random.Random) -> list[float]:
    """A window of `trace`, drawn by `rng` and brought to a mean rate.

    Of `Instants`, `requests` consecutive arrivals, or the whole trace where that is shorter, with
    the time axis stretched: what came together still comes together, and bursts are as long, in
    requests, as they were. Of `Counts`, as many bins as `requests` take at this rate, `LEAST_BINS`
    at least, or the longest stretch without a gap where that is shorter, with the counts scaled:
    seconds stay seconds. Within a bin arrivals are a Poisson process, by the inverse of the
    cumulative rate (Çinlar 1975, Introduction to Stochastic Processes, 4.7), so that how many come
    is random. No window touches a gap in the recording, and none wraps around.

    Args:
        rate_per_s: mean rate of the window, requests per s.
        requests: how many to replay; 1 or more.

    Returns:
        Arrivals in s, non-decreasing. Of `Instants` the first is 0; of `Counts` the window begins
        at 0, and there may be none when few are expected.

    Raises:
        BadTrace: a rate or a number of requests out of its domain, or counts with no stretch of
            `LEAST_BINS` bins between gaps.
    """
    demand(trace.name, rate_per_s, requests)
    if isinstance(trace, Instants):
        return _window_of_instants(trace, rate_per_s, requests, rng)
    return _window_of_counts(trace, rate_per_s, requests, rng)


def demand(name: str, rate_per_s: float, requests: int) -> None:
    """Refuses a rate or a number of requests that nothing can be drawn for.

    Raises:
        BadTrace: the rate is not between `LEAST_RATE_PER_S` and `MOST_RATE_PER_S`, or no request
            is asked for.
    """
    if not LEAST_RATE_PER_S <= rate_per_s <= MOST_RATE_PER_S:
        expected = f"requests per second from {LEAST_RATE_PER_S:g} to {MOST_RATE_PER_S:g}"
        raise bad(name, None, "rate_per_s", rate_per_s, expected)
    if requests < 1:
        raise bad(name, None, "requests", requests, "1 or more")


def _window_of_instants(
    trace: Instants, rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    times = trace.times
    size = min(requests, len(times))
    if size == 1:
        return [0.0]
    # A window whose arrivals all came at once has no rate to scale; at least one window has.
    starts = [
        first for first in range(len(times) - size + 1) if times[first + size - 1] > times[first]
    ]
    first = rng.choice(starts)
    begin, span = times[first], times[first + size - 1] - times[first]
    length_s = (size - 1) / rate_per_s
    # Divided first: a span may be too short for a scale that a float can hold.
    return [(time - begin) / span * length_s for time in times[first : first + size]]


def _window_of_counts(
    trace: Counts, rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    longest = max((end - first for first, end in trace.stretches), default=0)
    if longest < LEAST_BINS:
        raise bad(
            trace.name,
            None,
            "counts",
            f"{longest} bins",
            f"at least {LEAST_BINS} bins without more than {LONGEST_SILENCE} zeros in a row",
        )
    wanted = requests / rate_per_s / trace.bin_s
    size = longest if wanted >= longest else max(LEAST_BINS, math.ceil(wanted))
    first = _start(trace.stretches, size, rng)
    expected = rate_per_s * size * trace.bin_s
    window = trace.counts[first : first + size]
    total = sum(window)
    reached = [0, *accumulate(window)]
    found: list[float] = []
    # A Poisson process of rate 1 on the axis of arrivals expected, carried back to time.
    at = rng.expovariate(1.0)
    while at < expected:
        level = at / expected * total
        index = min(bisect_right(reached, level) - 1, size - 1)
        share = (level - reached[index]) / window[index] if window[index] else 0.0
        found.append((index + min(share, 1.0)) * trace.bin_s)
        at += rng.expovariate(1.0)
    return found


def _start(stretches: Sequence[tuple[int, int]], size: int, rng: random.Random) -> int:
    """The first bin of a window of `size` bins inside a stretch, each such window as likely."""
    fitting = [(first, end - first - size + 1) for first, end in stretches if end - first >= size]
    drawn = rng.randrange(sum(starts for _, starts in fitting))
    for first, starts in fitting:
        if drawn < starts:
            return first + drawn
        drawn -= starts
    raise AssertionError("the draw is below the sum")
