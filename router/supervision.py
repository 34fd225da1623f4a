"""Supervision: when a worker process is started, when it opens the port, and when all is given up.

    down ── Start ──> starting ── settled ──> settled
      ^                  │                       │
      └───── ended ──────┴───────────────────────┘

Each process of `gearshift serve --workers N` is one value here, and `next_action` says what its
supervisor does next. A worker that ended is started again, later each time it fails, so that one
that cannot live does not take the others' cores with its starts.

Until a worker has settled (every variant loaded, or known to have failed) it would refuse what it
is sent. So one that starts beside others opens the port only when it has settled, and callers never
meet it before. Where nobody has opened the port one is told to at once: health must be answered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 30.0
# One that served for so long has recovered from what ended it before.
_RECOVERED_S = 60.0
_ENOUGH_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process, or the place of one that ended.

    Attributes:
        open: whether it was told to accept connections.
        since_s: when its state began.
        failures: how often in a row it ended before it had served for long.
        due_s: when one that is down is to be started.
    """

    number: int
    state: Literal["down", "starting", "settled"] = "down"
    open: bool = False
    since_s: float = -math.inf
    failures: int = 0
    due_s: float = -math.inf

    def started(self, now_s: float) -> Worker:
        """Its process runs."""
        return replace(self, state="starting", open=False, since_s=now_s)

    def opened(self) -> Worker:
        """It was told to open the port."""
        return replace(self, open=True)

    def settled(self, now_s: float) -> Worker:
        """It has loaded what it can."""
        return replace(self, state="settled", since_s=now_s)

    def ended(self, now_s: float, *, clean: bool) -> Worker:
        """Its process ended.

        Args:
            clean: whether it did so as one does that was asked to.
        """
        served = self.state == "settled"
        well = served and (clean or now_s - self.since_s >= _RECOVERED_S)
        failures = 0 if well else self.failures + 1
        return Worker(
            self.number, since_s=now_s, failures=failures, due_s=now_s + _delay_s(failures)
        )


class Start(NamedTuple):
    """Start the process of this worker."""

    number: int


class Open(NamedTuple):
    """Tell this worker to open the port."""

    number: int


class GiveUp(NamedTuple):
    """No worker serves and none can be brought to."""


class Wait(NamedTuple):
    """Nothing to do before this time, unless something happens."""

    until_s: float


Action = Start | Open | GiveUp | Wait


def next_action(workers: Sequence[Worker], now_s: float) -> Action:
    """What to do next; asked again after each action and each event.

    Args:
        workers: each number once, at least one.
        now_s: monotonic.
    """
    if all(each.state != "settled" and each.failures >= _ENOUGH_FAILURES for each in workers):
        return GiveUp()
    closed = [each for each in workers if each.state != "down" and not each.open]
    settled = [each for each in closed if each.state == "settled"]
    opened = [each for each in workers if each.open]
    if not opened and closed:
        return Open((settled or closed)[0].number)
    # Beside one that still loads, the port would answer now one thing and now another.
    if settled and all(each.state == "settled" for each in opened):
        return Open(settled[0].number)
    down = [each for each in workers if each.state == "down"]
    for each in down:
        if each.due_s <= now_s:
            return Start(each.number)
    return Wait(min((each.due_s for each in down), default=math.inf))


def _delay_s(failures: int) -> float:
    # The exponent is bounded, or a float would overflow in the end.
    return min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(failures - 1, 20)) if failures else 0.0
