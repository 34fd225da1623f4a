"""What becomes of requests whose batch failed: another place in the queue, or an error.

And whose fault it was, where that shows only later: a request that one variant failed on and
another one answers convicts the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gateway.execution.keeper import Keeper
from gateway.execution.tickets import Fault, Ticket, again, failed
from router.errors import DeadlinePassed, GearshiftError, NotReady


class SecondRuns:
    """Runs on the event loop's thread.

    Args:
        requeue: puts a ticket back into the queue; whether that is still possible.
    """

    def __init__(self, keeper: Keeper, requeue: Callable[[Ticket], bool]) -> None:
        self._keeper = keeper
        self._requeue = requeue

    def give(self, variant: str, left: Sequence[tuple[Ticket, Exception]], judged: bool) -> int:
        """Queue those again that something else may answer, and fail the others.

        Args:
            left: each with what `variant` failed with on it; requests of one group share that.
            judged: whether it is known that the variant is to blame.

        Returns:
            How many were queued.
        """
        faults: dict[int, Fault] = {}
        queued = 0
        for ticket, error in left:
            fault = faults.setdefault(id(error), Fault(variant, error, judged))
            second = None if ticket.done.done() else again(ticket, fault)
            if second is not None and self._requeue(second):
                queued += 1
            else:
                fail(ticket, failed(ticket, fault))
        return queued

    def answered(self, ticket: Ticket, variant: str) -> str:
        """`variant` answered it; returns the one that failed on it before, if any."""
        fault = ticket.fault
        if fault is None:
            return ""
        if not fault.judged and variant != fault.variant:
            fault.judged = True
            self._keeper.convict(ticket.request.model, fault.variant)
        return fault.variant


def expire(tickets: Sequence[Ticket]) -> None:
    """End requests that left the queue unrun."""
    for ticket in tickets:
        fail(ticket, _expired(ticket))


def _expired(ticket: Ticket) -> GearshiftError:
    """Why a request left the queue unrun."""
    if ticket.fault is not None:
        return failed(ticket, ticket.fault)
    if ticket.waiting.deadline_s == math.inf:
        return NotReady(f"no variant of {ticket.request.model} is ready")
    return DeadlinePassed("the deadline could not be met any more; not run")


def fail(ticket: Ticket, error: GearshiftError) -> None:
    """End a request with `error`, unless it has ended."""
    if not ticket.done.done():
        ticket.done.set_exception(error)
