"""Ahead: the times, beyond what waits, at which what is likely to come must fit as well."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from router.choices import Choices
from router.queue import Expected

# Every so many of the prefixes that are looked at are also judged with what is likely to come
# before they are due.
VIEWS = 5
# Of those that are due much later than usual, none is: until then there is time to make up for what
# comes. In usual deadlines.
FAR = 6


def views_of(
    slack: Sequence[float], expected: Sequence[Expected], reserve_ms: float
) -> list[tuple[float, int]]:
    """Where to look for arrivals: times ahead, each with the prefixes that are due by then.

    At some of the prefixes, since what comes may be due sooner than what waits; and twice a usual
    deadline ahead, when what comes now has been followed by as much again. Looking further would
    forbid what the time until the deadlines makes up for; looking no further than what waits is
    to be surprised by what comes. The usual deadline is the harmonic mean, so that the few who can
    wait long do not stretch it.
    """
    rate = sum([kind.rows_per_ms for kind in expected])
    if not rate:
        return []
    usual_ms = rate / sum([kind.rows_per_ms / kind.within_ms for kind in expected])
    ahead_ms = 2 * usual_ms - reserve_ms
    near = bisect_right(slack, ahead_ms)
    far = bisect_right(slack, FAR * usual_ms)
    views = [(slack[at], at + 1) for at in range(VIEWS - 1, far, VIEWS)]
    return [*views, (ahead_ms, near)]


def left_beyond(
    ends: Sequence[float],
    room: Sequence[float],
    slack: Sequence[float],
    least_ms: Sequence[float],
    expected: Sequence[Expected],
    least: Mapping[Choices, float],
    reserve_ms: float,
) -> float:
    """Lane time left for what is due soon if all that is due later takes its least.

    What waits long, or comes later, must not be left more than can be made up for.

    Args:
        ends, room: times ahead to look at, and the lane time until then.
        slack, least_ms: of what waits and is not due soon.
    """
    later = [0.0, *accumulate(least_ms)]
    spare = math.inf
    for at, have in zip(ends, room, strict=True):
        coming = sum(
            [
                least[kind.choices] * kind.rows_per_ms * max(0.0, at - reserve_ms - kind.within_ms)
                for kind in expected
            ]
        )
        spare = min(spare, have - later[bisect_right(slack, at)] - coming)
    return spare
