"""The queue: what waits for a lane, the most urgent first; and what is likely to come.

A plain value with three verbs, shared by the gateway and the simulator. It knows no clock: time
is an argument.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

from router.choices import Choices
from router.constraints import Priority
from router.menu import Menu

# By when a request without a deadline is due, for the order of the queue: behind those with
# tighter deadlines, but before whatever arrives a second later.
PATIENCE_S = 1.0

# Arrivals are remembered for about as long as a few deadlines last: long enough to tell a rate,
# short enough to see a burst.
MEMORY_S = 0.4
# Kinds of request whose arrivals are told apart, and those of them that a plan looks at.
_KINDS = 32
_BUSIEST = 8
# One request of many rows is no stream of them: it counts for so many, or for as many as came
# lately.
_ALONE_ROWS = 32

# Who is shed last, first.
RANKS: Mapping[Priority, int] = {"high": 0, "normal": 1, "low": 2}


class Waiting(NamedTuple):
    """One queued request. The first two members order the queue.

    Attributes:
        due_s: monotonic time by which it is wanted. A request without a deadline has one all the
            same, `PATIENCE_S` after its arrival, so that it does not wait for ever behind those
            that have one.
        ticket: its number; earlier ones are smaller.
        rows: rows of its tensors.
        deadline_s: monotonic time by which its answer must be out; infinite without one.
        choices: what may answer.
        routed: the variant that it was routed to when it arrived.
        priority: who is shed first.
        soft: whether it is still wanted after its deadline.
    """

    due_s: float
    ticket: int
    rows: int
    deadline_s: float
    choices: Choices
    routed: str
    priority: Priority = "normal"
    soft: bool = False


class Expected(NamedTuple):
    """Requests of one kind that keep arriving: rows per ms, each due `within_ms` of its arrival."""

    choices: Choices
    within_ms: float
    rows_per_ms: float


_BY_RATE = attrgetter("rows_per_ms")


class Queue:
    """Requests in order of urgency; `waiting` is sorted and is not to be changed from outside."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self._arriving: dict[tuple[Choices, float], tuple[float, float, float]] = {}

    def add(self, waiting: Waiting) -> None:
        """Put a request in its place."""
        insort(self.waiting, waiting)

    def remove(self, leaving: Iterable[Waiting]) -> None:
        """Take requests out; those that are not in it are passed over."""
        queue = self.waiting
        for waiting in leaving:
            at = bisect_left(queue, waiting[:2])
            if at < len(queue) and queue[at] is waiting:
                del queue[at]

    def arrived(self, choices: Choices, within_ms: float, rows: int, now_s: float) -> None:
        """Remember that such a request was let in."""
        window_ms = MEMORY_S * 1000
        # Deadlines that are nearly alike are one kind.
        key = choices, _rounded(within_ms)
        rate, last_s, _ = self._arriving.get(key, (0.0, now_s, 0.0))
        decayed = rate * math.exp((last_s - now_s) / MEMORY_S)
        own = min(rows, max(_ALONE_ROWS, decayed * window_ms)) / window_ms
        self._arriving[key] = decayed + own, now_s, own
        if len(self._arriving) > _KINDS:
            self._forget(now_s)

    def forget(self, menus: Collection[Menu]) -> None:
        """Expect nothing any more of the menus that are not among `menus`."""
        self._arriving = {key: rate for key, rate in self._arriving.items() if key[0].menu in menus}

    def expected(self, now_s: float) -> list[Expected]:
        """What keeps arriving, by the recent past; the busiest kinds stand for all.

        Of those in no hurry the last to come is not counted: one is no sign of another, and there
        is time to wait for one.
        """
        kinds = [
            Expected(
                choices,
                within_ms,
                (rate - own if within_ms >= PATIENCE_S * 1000 else rate)
                * math.exp((last_s - now_s) / MEMORY_S),
            )
            for (choices, within_ms), (rate, last_s, own) in self._arriving.items()
        ]
        if len(kinds) <= _BUSIEST:
            return kinds
        kinds.sort(key=_BY_RATE, reverse=True)
        total = sum([kind.rows_per_ms for kind in kinds])
        kept = sum([kind.rows_per_ms for kind in kinds[:_BUSIEST]])
        factor = total / kept if kept else 1.0
        return [
            Expected(choices, within_ms, rate * factor)
            for choices, within_ms, rate in kinds[:_BUSIEST]
        ]

    def _forget(self, now_s: float) -> None:
        """Keep the busier half of the kinds."""
        kinds = sorted(
            self._arriving.items(),
            key=lambda item: item[1][0] * math.exp((item[1][1] - now_s) / MEMORY_S),
            reverse=True,
        )
        self._arriving = dict(kinds[: _KINDS // 2])


def _rounded(ms: float) -> float:
    """`ms` to within an eighth."""
    mantissa, exponent = math.frexp(ms)
    return math.ldexp(round(mantissa * 8) / 8, exponent)
