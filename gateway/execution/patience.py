"""How long a request waits for its result: until its deadline, or until its caller has gone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from gateway.execution.tickets import Ticket
from router.errors import CallerLeft, DeadlinePassed, GearshiftError

# A caller is watched only once it has waited this long: most are answered sooner, and watching
# costs a task, a tenth of what the whole request does. One that leaves sooner is noticed when the
# watch begins.
_WATCH_AFTER_S = 0.01
# The loop's timers count whole milliseconds; one too many is corrected on sending.
_TIMER_S = 0.001


class Patience:
    """Ends the wait for a ticket's result, with one timer at a time. `end` must follow.

    Args:
        left: makes an awaitable that returns when the caller has gone.
    """

    __slots__ = ("_deadline_s", "_left", "_loop", "_ticket", "_timer", "_watch")

    def __init__(self, ticket: Ticket, left: Callable[[], Awaitable[None]]) -> None:
        waiting = ticket.waiting
        self._ticket = ticket
        self._left = left
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.Future[None] | None = None
        self._deadline_s = math.inf if waiting.soft else waiting.deadline_s
        after_s = _WATCH_AFTER_S
        if self._deadline_s < math.inf:
            after_s = min(after_s, self._deadline_s - time.monotonic() + _TIMER_S)
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(after_s, self._look)

    def end(self) -> None:
        """There is a result, or nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()

    def _look(self) -> None:
        """Give up where the deadline has passed; else watch the caller, and wait until then."""
        self._timer = None
        left_s = self._deadline_s - time.monotonic()
        if left_s < 0:
            self._give_up(DeadlinePassed("the deadline passed before there was an answer"))
            return
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._left())
            self._watch.add_done_callback(self._gone)
        if left_s < math.inf:
            self._timer = self._loop.call_later(left_s + _TIMER_S, self._look)

    def _gone(self, _: object) -> None:
        self._give_up(CallerLeft("the caller left"))

    def _give_up(self, error: GearshiftError) -> None:
        done = self._ticket.done
        if not done.done():
            done.set_exception(error)
