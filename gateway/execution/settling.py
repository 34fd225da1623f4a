"""Settling: each request of a batch that ran gets its outcome, and the watcher is told."""

from __future__ import annotations

from collections.abc import Callable

from gateway.execution.batch import Ran
from gateway.execution.keeper import Batch, Keeper, Watcher
from gateway.execution.second_runs import SecondRuns
from gateway.execution.tickets import Result, Ticket


class Settling:
    """Runs on the event loop's thread.

    Args:
        requeue: puts a ticket back into the queue; whether that is still possible.
    """

    def __init__(self, keeper: Keeper, requeue: Callable[[Ticket], bool], watcher: Watcher) -> None:
        self._second_runs = SecondRuns(keeper, requeue)
        self._watcher = watcher

    def settle(self, running: Batch, ran: Ran, finished_s: float, judged: bool) -> None:
        """Give each request its outcome.

        Args:
            judged: whether it is known already that the variant is to blame for what failed.
        """
        assignment, tickets, started_s = running
        model, variant = assignment.model, assignment.variant
        rows, answered = sum(ticket.waiting.rows for ticket in tickets), 0
        failed: list[tuple[Ticket, Exception]] = []
        for ticket, outcome in zip(tickets, ran.outcomes, strict=True):
            if isinstance(outcome, Exception):
                failed.append((ticket, outcome))
                continue
            answered += ticket.waiting.rows
            before = self._second_runs.answered(ticket, variant) if ticket.fault else ""
            if not ticket.done.done():  # its caller may have left, or its deadline passed
                ticket.done.set_result(
                    Result(outcome, variant, started_s, finished_s, rows, before)
                )
        if failed:
            retried = self._second_runs.give(variant, failed, judged)
            self._watcher.batch_failed(model, variant, retried)
        self._watcher.lane_ran(finished_s - started_s)
        if answered:
            took_s = finished_s - started_s - ran.failed_s
            self._watcher.batch(model, variant, answered, took_s)
