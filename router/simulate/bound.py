"""bound(): the most accuracy that any policy could have given this traffic, the future known.

Nothing a policy does can beat it: choosing, ordering, batching, holding back, dropping, aborting,
at random or by rule, knowing every arrival beforehand. What lies between a policy and the bound is
the most that a better policy could still win.

Why nothing beats it. Charge every request with its share of the lane time spent on it between its
arrival and its deadline, in expectation where service times are random; u_i is request i's charge.

1.  The charges are a flow: request i takes its share inside its own window, and all of them
    together never take more than the lanes do. So for any caps c_i, Σ min(u_i, c_i) ≤ F(c), the
    most work that a fluid machine as fast as all lanes together does on requests of sizes c_i
    inside their windows. Being divisible, it loses nothing to batches, lanes or order.
2.  An answer by option v costs at least w_v of charge: p_iv, the chance that v answers i on time,
    has Σ_v w_v p_iv ≤ u_i and Σ_v p_iv ≤ 1. So i is worth at most h_i(u_i), where h_i is the least
    concave function over (0, 0) and the points (w_v, worth_v), flat after the last.
3.  A concave piecewise-linear h is a sum of caps. With s_1 > s_2 > … > s_R > s_(R+1) = 0 all slopes
    there are and c_i^r the length over which h_i is at least as steep as s_r, it is
    h_i(u) = Σ_r (s_r − s_(r+1)) min(u, c_i^r). Summing over i, with 1: the worth of all requests is
    at most Σ_r (s_r − s_(r+1)) F(c^r), which is what bound() returns.

F is computed exactly: on a divisible machine, always working on the earliest deadline does the most
work (Glover 1967, matching in convex bipartite graphs, in the limit of small jobs). So time is not
cut into slots and nothing is lost to rounding. Nor does 3 lose anything: the flows of 1 form a
polymatroid, where greed is optimal (Federgruen and Groenevelt 1986), so the value is that of the
linear program over 1 and 2; the tests solve it.

What the bound gives away, and no policy can have: lanes act as one, a request may be cut up and
spread over lanes and over options, and every batch is as efficient as the best.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from itertools import pairwise

# Added to what is computed, relatively, so that it stays a bound when sums are rounded.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Class:
    """Requests that are alike.

    Attributes:
        max_latency_ms: time from arrival within which an answer counts; infinite: whenever.
        worth: by option that may answer, what an answer in time counts: the variant's accuracy.
            Leave out an option that is too slow for the deadline even alone: the bound would take
            a part of it.
        work_ms: by option, the least lane time that one request takes at speed 1. A batch must
            take at least the sum of its members': with batches of n rows in t(n) ms, that is the
            request's rows times the least t(n) / n; with random times, of `least_ms` / n. Random
            times must not be known to the policy before they have passed.
    """

    max_latency_ms: float
    worth: tuple[float, ...]
    work_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """What no policy exceeds, each by itself, on average over all requests.

    Attributes:
        worth: mean worth; a request that is not answered in time counts 0. Effective accuracy,
            where worth is accuracy.
        served: share of the requests answered in time, by whatever option.
    """

    worth: float
    served: float


def bound(
    arrivals_s: Sequence[float],
    kinds: Sequence[int],
    classes: Sequence[Class],
    *,
    lanes: int,
    speed: Sequence[tuple[float, float]] = ((0.0, 1.0),),
) -> Bound:
    """The most that any policy could make of these requests; see the module for the proof.

    Takes one pass over the requests, about 0.1 s for 100,000, for every different slope (gain of
    worth per ms of work) there is among the classes.

    Args:
        arrivals_s: when each request arrives, ascending.
        kinds: of each request, the index of its class.
        classes: the kinds of requests there are.
        lanes: how many batches run at once.
        speed: (second, speed), ascending: from that second on lanes work at that speed; at 0.5
            everything takes twice as long. Where it ends at 0, what is left is never answered.

    Raises:
        ValueError: naming the argument that is malformed.
    """
    _check(arrivals_s, kinds, classes, lanes, speed)
    # Counted in work that the lanes can have done until then, speed is 1 and there is one lane.
    done_by = _Clock(lanes, speed)
    ready = [done_by(arrival) for arrival in arrivals_s]
    due = [
        done_by(arrival + classes[kind].max_latency_ms / 1000)
        for arrival, kind in zip(arrivals_s, kinds, strict=True)
    ]
    requests = list(zip(ready, due, kinds, strict=True))
    return Bound(
        worth=_most(requests, [(of.worth, of.work_ms) for of in classes]),
        served=_most(requests, [((1.0,) * len(of.worth), of.work_ms) for of in classes]),
    )


def least_ms(points: Sequence[tuple[float, float]]) -> float:
    """Least mean lane time per success of a batch whose time X is random: min E[min(X, r)]/P(X≤r).

    A policy that has time r left when it starts a batch spends min(X, r) on it until then and
    succeeds if X ≤ r; so whatever r it has, or stops at, a success costs this much or more. It is
    X if X is constant and never more than the mean (r = ∞). It is less than the mean where a few
    batches take very long: these are better given up. Divide by the batch's rows for work per row.

    With Q the inverse distribution, r = Q(q), it is the least over q of N(q)/q, where
    N(q) = ∫_0^q Q + (1 − q) Q(q). On a straight piece of Q with slope m ≥ 0, N'(q) = (1 − q) m, so
    N(q)/q = c/q + m − m q/2 for some c, with derivative −(c/q² + m/2): negative throughout, or,
    with c < 0, positive first and then negative. Neither has its least value inside the piece, so
    only the given points are looked at.

    Args:
        points: (q, ms), both ascending, q from 0 to 1: X ≤ ms with probability q, linear between.
            Equal q are a jump. Of n sorted samples: (i/n, x_i) and ((i+1)/n, x_i) for each i.

    Raises:
        ValueError: they are not such points.
    """
    if len(points) < 2 or points[0][0] != 0.0 or points[-1][0] != 1.0:
        raise ValueError(f"points: expected (q, ms) with q from 0 to 1, got {list(points[:3])}…")
    if not all(math.isfinite(ms) and ms >= 0 for _, ms in points):
        raise ValueError("points: expected times that are finite and not negative")
    least = math.inf
    below = 0.0  # ∫_0^q Q
    for (q, ms), (next_q, next_ms) in pairwise(points):
        if not (q <= next_q and ms <= next_ms):
            raise ValueError(f"points: ({next_q}, {next_ms}) after ({q}, {ms}) is not ascending")
        below += (next_q - q) * (ms + next_ms) / 2
        if next_q > 0:
            least = min(least, (below + (1 - next_q) * next_ms) / next_q)
    return least


def _check(
    arrivals_s: Sequence[float],
    kinds: Sequence[int],
    classes: Sequence[Class],
    lanes: int,
    speed: Sequence[tuple[float, float]],
) -> None:
    if not len(arrivals_s):
        raise ValueError("arrivals_s: expected at least one request, got none")
    if len(arrivals_s) != len(kinds):
        raise ValueError(f"kinds: expected one per arrival, {len(arrivals_s)}, got {len(kinds)}")
    if not all(map(math.isfinite, arrivals_s)):
        raise ValueError("arrivals_s: expected finite times")
    if any(late < early for early, late in pairwise(arrivals_s)):
        raise ValueError("arrivals_s: expected ascending times")
    if min(kinds) < 0 or max(kinds) >= len(classes):
        raise ValueError(
            f"kinds: expected indices into {len(classes)} classes, got {min(kinds)}..{max(kinds)}"
        )
    for index, of in enumerate(classes):
        where = f"classes[{index}]"
        if not of.max_latency_ms >= 0:
            raise ValueError(f"{where}.max_latency_ms: expected 0 or more, got {of.max_latency_ms}")
        if len(of.worth) != len(of.work_ms):
            raise ValueError(
                f"{where}.work_ms: expected one per worth, {len(of.worth)}, got {len(of.work_ms)}"
            )
        for name, values in (("worth", of.worth), ("work_ms", of.work_ms)):
            if not all(math.isfinite(value) and value >= 0 for value in values):
                raise ValueError(
                    f"{where}.{name}: expected finite values of 0 or more, got {values}"
                )
    if lanes < 1:
        raise ValueError(f"lanes: expected 1 or more, got {lanes}")
    if not speed or not -math.inf < speed[0][0] <= arrivals_s[0]:
        raise ValueError("speed: expected to start no later than the first arrival")
    if not all(early < late for (early, _), (late, _) in pairwise(speed)):
        raise ValueError("speed: expected ascending seconds")
    if not all(math.isfinite(pace) and pace >= 0 for _, pace in speed):
        raise ValueError("speed: expected finite speeds of 0 or more")


class _Clock:
    """From a second to the work, in ms, that all lanes can have done by then."""

    def __init__(self, lanes: int, speed: Sequence[tuple[float, float]]) -> None:
        self._from = [second for second, _ in speed]
        self._pace = [1000 * lanes * pace for _, pace in speed]
        self._done = [0.0]
        for (second, _), (until, _), pace in zip(speed, speed[1:], self._pace, strict=False):
            self._done.append(self._done[-1] + pace * (until - second))

    def __call__(self, second: float) -> float:
        at = bisect_right(self._from, second) - 1
        if not self._pace[at]:  # 0 times infinity
            return self._done[at]
        return self._done[at] + self._pace[at] * (second - self._from[at])


def _most(
    requests: Sequence[tuple[float, float, int]],
    options: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> float:
    """The bound on the mean worth of (ready, due, kind), given each kind's worths and works."""
    free = [
        max((value for value, work in zip(*of, strict=True) if not work), default=0.0)
        for of in options
    ]
    hulls = [list(_hull(least, *of)) for least, of in zip(free, options, strict=True)]
    slopes = sorted({slope for hull in hulls for slope, _ in hull}, reverse=True)
    total = math.fsum(free[kind] for _, _, kind in requests)
    for slope, following in pairwise([*slopes, 0.0]):
        caps = [sum(length for steep, length in hull if steep >= slope) for hull in hulls]
        total += (slope - following) * _volume(requests, caps)
    best = [max(worths, default=0.0) for worths, _ in options]
    ceiling = math.fsum(best[kind] for _, _, kind in requests)
    return min(total * (1 + _ROUNDING), ceiling) / len(requests)


def _hull(
    value: float, worths: Sequence[float], works: Sequence[float]
) -> Iterator[tuple[float, float]]:
    """(slope, length) of the pieces of the least concave function from (0, value), steepest first.

    Options under it, which something else or a mixture of others beats, are left out.
    """
    spent = 0.0
    while True:
        gains = [
            ((worth - value) / (work - spent), work, worth)
            for worth, work in zip(worths, works, strict=True)
            if work > spent and worth > value
        ]
        if not gains:
            return
        slope, work, worth = max(gains)
        yield slope, work - spent
        spent, value = work, worth


def _volume(requests: Sequence[tuple[float, float, int]], caps: Sequence[float]) -> float:
    """F: the most work done in time on requests of sizes `caps[kind]`, the earliest due first."""
    waiting: list[tuple[float, float]] = []  # (due, work left)
    now = volume = 0.0
    for ready, due, kind in (*requests, (math.inf, math.inf, -1)):
        while waiting and now < ready:
            end, left = waiting[0]
            if now + left > ready < end:
                heapreplace(waiting, (end, left - (ready - now)))
                volume += ready - now
                now = ready
                break
            heappop(waiting)
            if end > now:
                stop = min(now + left, end)
                volume += min(left, end - now)
                now = stop
        now = max(now, ready)
        if kind >= 0 and caps[kind]:
            heappush(waiting, (due, caps[kind]))
    return volume
