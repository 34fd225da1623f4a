"""Lanes: execution slots, one thread each, one batch at a time.

The lanes share one queue, kept by `router.scheduler`, and a lane that comes free asks it what to
run: the choice is made when the slack is known, not when the request arrived. A lane takes its next
batch by itself, so it does not idle until the event loop gets round to it; answers go back to the
loop in one callback a batch.

Requests are routed, submitted, withdrawn and settled on the event loop's thread alone. `_lock`
guards the scheduler, which lanes take from.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from gateway import batch
from gateway.engines import Tensor
from gateway.fleet import Fleet
from gateway.messages import InferRequest, Told
from router.constraints import Constraints
from router.decision import Decision
from router.dispatch import Assignment
from router.errors import DeadlinePassed, EngineFailed, GearshiftError, NotReady
from router.queue import Waiting
from router.scheduler import Scheduler

_LOG = logging.getLogger(__name__)


class Result(NamedTuple):
    """What a lane did for one request: monotonic times, and the rows it shared the batch with."""

    outputs: dict[str, Tensor]
    variant: str
    started_s: float
    finished_s: float
    batch_rows: int


class Ticket(NamedTuple):
    """A request's place in the queue; `done` gets its result or its error."""

    waiting: Waiting
    request: InferRequest
    decision: Decision
    told: Told
    done: asyncio.Future[Result]


class Lanes:
    """The queue and the threads that serve it.

    Args:
        scheduler: one that nobody else uses, with as many lanes as there are to be.
        on_batch: called on the loop's thread with (model, variant, rows, seconds) after each batch
            that answered anybody; rows that failed, and their seconds, are not in it.
    """

    def __init__(
        self,
        fleet: Fleet,
        scheduler: Scheduler,
        *,
        max_batch: int,
        on_batch: Callable[[str, str, int, float], None],
    ) -> None:
        self._fleet = fleet
        self._scheduler = scheduler
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._tickets: dict[int, Ticket] = {}
        self._unpublished = 0
        self.turn = 0
        self._running: list[tuple[str, str] | None] = [None] * len(scheduler.busy_until_s)
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._serve, args=(lane,), name=f"lane-{lane}", daemon=True)
            for lane in range(len(scheduler.busy_until_s))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Requests waiting for a lane."""
        return len(self._scheduler.queue.waiting)

    @property
    def busy(self) -> int:
        """Lanes that run a batch now."""
        return sum([until > 0 for until in self._scheduler.busy_until_s])

    def route(self, model: str, constraints: Constraints, rows: int) -> Decision:
        """As `Scheduler.route`, now; what was submitted counts as queued at once."""
        with self._lock:
            return self._scheduler.route(model, constraints, rows, time.monotonic())

    def submit(self, request: InferRequest, constraints: Constraints, decision: Decision) -> Ticket:
        """Queue a request that was accepted, by the decision that accepted it.

        Args:
            constraints: what it demands, the operator's defaults included.
        """
        scheduler = self._scheduler
        waiting = scheduler.waiting(
            decision, constraints, request.rows, next(self._numbers), request.received_s
        )
        done: asyncio.Future[Result] = self._loop.create_future()
        with self._lock:
            told = Told(decision.queued, decision.estimate_ms, decision.predicted_latency_ms)
            ticket = Ticket(waiting, request, decision, told, done)
            self._tickets[waiting.ticket] = ticket
            scheduler.submit((waiting,), time.monotonic())
            if not self._unpublished:
                self._loop.call_soon(self._publish)
            self._unpublished += 1
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Take a request out of the queue; one that a lane runs already is left to finish."""
        with self._lock:
            if self._tickets.pop(ticket.waiting.ticket, None) is not None:
                self._scheduler.withdraw(ticket.waiting)
                self.turn += 1

    def _publish(self) -> None:
        """Wake the lanes for what arrived in this turn of the loop, all of it at once.

        A lane that saw each request at once would take the interpreter's lock between two of them
        and run the first alone, where a turn later they make one batch.
        """
        with self._work:
            self._work.notify(self._unpublished)
            self._unpublished = 0

    def in_use(self, model: str, variant: str) -> bool:
        """Whether a lane runs `variant`, or a queued request was told that it may answer."""
        with self._lock:
            return (model, variant) in self._running or any(
                ticket.request.model == model and variant in ticket.decision.allowed
                for ticket in self._tickets.values()
            )

    def refuse_queued(self) -> None:
        """Refuse what is still queued, and let the threads end after the batches they run."""
        with self._work:
            self._stopping = True
            left = list(self._tickets.values())
            self._tickets.clear()
            for ticket in left:
                self._scheduler.withdraw(ticket.waiting)
            self._work.notify_all()
        for ticket in left:
            _fail(ticket, NotReady("the server is stopping"))

    def join(self, patience_s: float) -> bool:
        """Whether all threads have ended within `patience_s`: an engine may hang in its own code.

        Blocks; `refuse_queued` comes first.
        """
        give_up_s = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, give_up_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # From here to `_pop` everything runs on a lane's thread.

    def _serve(self, lane: int) -> None:
        while (taken := self._take(lane)) is not None:
            assignment, tickets = taken
            started_s = time.monotonic()
            ran = self._run(assignment, tickets, lane)
            finished_s = time.monotonic()
            took_s = finished_s - started_s - ran.failed_s
            answered = tuple(
                ticket.waiting
                for ticket, outcome in zip(tickets, ran.outcomes, strict=True)
                if not isinstance(outcome, Exception)
            )
            with self._lock:
                # Before anybody is answered: who asks again at once finds the lane free.
                self._scheduler.busy_until_s[lane] = 0.0
                self._running[lane] = None
                if answered:
                    # A group that failed teaches nothing.
                    learnt = replace(assignment, members=answered)
                    self._scheduler.finished(learnt, took_s * 1000, time.monotonic())
            self._loop.call_soon_threadsafe(
                self._settle, assignment, tickets, ran, started_s, finished_s
            )

    def _run(self, assignment: Assignment, tickets: Sequence[Ticket], lane: int) -> batch.Ran:
        name = f"{assignment.model}/{assignment.variant}"
        try:
            model = self._fleet.model(assignment.model)
            requests = [ticket.request for ticket in tickets]
            with model.loaded[assignment.variant].lease(lane) as program:
                ran = batch.run(program, requests, model.outputs, self._max_batch)
        except Exception as error:
            # Whatever went wrong ends this batch, not the lane.
            _LOG.exception("%s failed on a batch", name)
            return batch.Ran([error] * len(tickets), 0.0)
        # Requests of one group share their error.
        for fault in dict.fromkeys(each for each in ran.outcomes if isinstance(each, Exception)):
            _LOG.error("%s failed on a batch", name, exc_info=fault)
        return ran

    def _take(self, lane: int) -> tuple[Assignment, list[Ticket]] | None:
        with self._work:
            while True:
                if self.queued <= self._unpublished:
                    # Nothing, or what this turn of the loop may still bring company for.
                    if self._stopping:
                        return None
                    self._work.wait()
                    continue
                now_s = time.monotonic()
                assignment = self._scheduler.take(lane, now_s)
                self.turn += 1
                if assignment.expired:
                    self._loop.call_soon_threadsafe(
                        self._refuse, self._pop(assignment.expired), _expired
                    )
                if assignment.members:
                    self._running[lane] = assignment.model, assignment.variant
                    return assignment, self._pop(assignment.members)
                if assignment.wait_until_s > now_s:
                    self._work.wait(assignment.wait_until_s - now_s)
                elif not assignment.expired:
                    self._work.wait()

    def _pop(self, leaving: Sequence[Waiting]) -> list[Ticket]:
        return [self._tickets.pop(waiting.ticket) for waiting in leaving]

    # From here on everything runs on the event loop's thread.

    def _settle(
        self,
        assignment: Assignment,
        tickets: Sequence[Ticket],
        ran: batch.Ran,
        started_s: float,
        finished_s: float,
    ) -> None:
        rows, answered = sum(ticket.waiting.rows for ticket in tickets), 0
        for ticket, outcome in zip(tickets, ran.outcomes, strict=True):
            if isinstance(outcome, Exception):
                told = f"{assignment.model}/{assignment.variant}: {outcome}"
                _fail(ticket, EngineFailed(told, assignment.variant))
                continue
            answered += ticket.waiting.rows
            if not ticket.done.done():  # its caller may have left, or its deadline passed
                ticket.done.set_result(
                    Result(outcome, assignment.variant, started_s, finished_s, rows)
                )
        if answered:
            took_s = finished_s - started_s - ran.failed_s
            self._on_batch(assignment.model, assignment.variant, answered, took_s)

    def _refuse(self, tickets: Sequence[Ticket], why: Callable[[Ticket], GearshiftError]) -> None:
        for ticket in tickets:
            _fail(ticket, why(ticket))


def _expired(ticket: Ticket) -> GearshiftError:
    if ticket.waiting.deadline_s == math.inf:
        return NotReady(f"no variant of {ticket.request.model} is ready")
    return DeadlinePassed("the deadline could not be met any more; not run")


def _fail(ticket: Ticket, error: GearshiftError) -> None:
    if not ticket.done.done():
        ticket.done.set_exception(error)
