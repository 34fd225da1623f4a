"""Lanes: execution slots, one thread each, one batch at a time.

The lanes share one queue, kept in order of urgency, and a lane that comes free asks
`router.dispatch` what to run: the choice is made when the slack is known, not when the request
arrived. A lane takes its next batch by itself, so it does not idle until the event loop gets round
to it; answers go back to the loop in one callback a batch.

Requests are submitted, withdrawn and settled on the event loop's thread alone. `_lock` guards the
queue, which lanes take from.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway import batch
from gateway.engines import Tensor
from gateway.fleet import Fleet, ServedModel
from gateway.messages import InferRequest
from gateway.telemetry import OVERHEAD_START_MS, Telemetry
from router.dispatch import Assignment, Pace, Waiting, dispatch, order
from router.errors import DeadlinePassed, EngineFailed, GearshiftError, NotReady
from router.menu import batch_ms
from router.snapshot import Snapshot

_LOG = logging.getLogger(__name__)

# By when a request without a deadline is due, for the order of the queue: behind those with
# tighter deadlines, but before whatever arrives a second later.
PATIENCE_S = 1.0


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
    done: asyncio.Future[Result]


class Lanes:
    """The queue and the threads that serve it.

    Args:
        on_batch: called on the loop's thread with (model, variant, rows, seconds) after each batch.
    """

    def __init__(
        self,
        fleet: Fleet,
        telemetry: Telemetry,
        *,
        count: int,
        max_batch: int,
        on_batch: Callable[[str, str, int, float], None],
    ) -> None:
        self._fleet = fleet
        self._telemetry = telemetry
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._arrivals: list[Waiting] = []
        self._queue: list[Waiting] = []
        self._tickets: dict[int, Ticket] = {}
        self._rows: dict[str, dict[str, int]] = {}
        self._busy_until_s = [0.0] * count
        self._running: list[tuple[str, str] | None] = [None] * count
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._serve, args=(lane,), name=f"lane-{lane}", daemon=True)
            for lane in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Requests waiting for a lane."""
        return len(self._queue) + len(self._arrivals)

    @property
    def busy(self) -> int:
        """Lanes that run a batch now."""
        return sum(until > 0 for until in self._busy_until_s)

    def submit(
        self,
        request: InferRequest,
        choices: tuple[str, ...],
        deadline_s: float = math.inf,
        soft: bool = False,
    ) -> Ticket:
        """Queue a request; see `router.dispatch.Waiting` for the arguments."""
        waiting = Waiting(
            ticket=next(self._numbers),
            model=request.model,
            rows=request.rows,
            due_s=min(deadline_s, request.received_s + PATIENCE_S),
            deadline_s=deadline_s,
            choices=choices,
            soft=soft,
        )
        ticket = Ticket(waiting, request, self._loop.create_future())
        with self._lock:
            self._tickets[waiting.ticket] = ticket
            self._count(waiting, +1)
        if not self._arrivals:
            self._loop.call_soon(self._publish)
        self._arrivals.append(waiting)
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Take a request out of the queue; one that a lane runs already is left to finish."""
        with self._lock:
            if self._tickets.pop(ticket.waiting.ticket, None) is None:
                return
            self._count(ticket.waiting, -1)
            if ticket.waiting in self._arrivals:
                self._arrivals.remove(ticket.waiting)
            else:
                del self._queue[bisect.bisect_left(self._queue, order(ticket.waiting), key=order)]

    def _publish(self) -> None:
        """Show the lanes what arrived in this turn of the loop, all of it at once.

        A lane that saw each request at once would take the interpreter's lock between two of them
        and run the first alone, where a turn later they make one batch.
        """
        with self._work:
            for waiting in self._arrivals:
                bisect.insort(self._queue, waiting, key=order)
            self._work.notify(len(self._arrivals))
        self._arrivals.clear()

    def snapshot(self, model: ServedModel, now_s: float, due_s: float = math.inf) -> Snapshot:
        """What is true now for a request of `model` that is due at `due_s`.

        Only what is due before it counts as queued: the lanes take the most urgent first.
        """
        slowdown = self._telemetry.slowdown(model.name, now_s)
        backlog = 0.0
        ahead = self._ahead(due_s) if self._rows else {}
        for name, queued in ahead.items():
            offers = self._fleet.model(name).menu.by_name
            factors = self._telemetry.slowdown(name, now_s)
            for variant, rows in queued.items():
                backlog += batch_ms(offers[variant].typical_ms, rows) * factors.get(variant, 1)
        return Snapshot(
            lane_free_in_ms=tuple(
                [(until - now_s) * 1000 if until > now_s else 0.0 for until in self._busy_until_s]
            ),
            backlog_ms=backlog,
            queued_rows=ahead.get(model.name, {}),
            slowdown=slowdown,
            overhead_ms=self._telemetry.overhead_ms(now_s),
            least_overhead_ms=OVERHEAD_START_MS,
            ready=model.ready,
        )

    def _ahead(self, due_s: float) -> dict[str, dict[str, int]]:
        """Rows queued that are due by `due_s`, by model and variant."""
        with self._lock:
            end = bisect.bisect_right(self._queue, (due_s, math.inf), key=order)
            later = [w for w in self._arrivals if w.due_s > due_s]
            if end > len(self._queue) // 2:
                # Few are due later: take them off what is kept of all.
                rows = {name: dict(queued) for name, queued in self._rows.items()}
                for waiting in itertools.chain(self._queue[end:], later):
                    rows[waiting.model][waiting.choices[0]] -= waiting.rows
                return rows
            rows = {}
            sooner = [w for w in self._arrivals if w.due_s <= due_s]
            for waiting in itertools.chain(self._queue[:end], sooner):
                queued = rows.setdefault(waiting.model, {})
                variant = waiting.choices[0]
                queued[variant] = queued.get(variant, 0) + waiting.rows
            return rows

    def in_use(self, model: str, variant: str) -> bool:
        """Whether a lane runs `variant`, or a queued request may have it run."""
        with self._lock:
            return (model, variant) in self._running or any(
                waiting.model == model and variant in waiting.choices
                for waiting in itertools.chain(self._queue, self._arrivals)
            )

    def refuse_queued(self) -> None:
        """Refuse what is still queued, and let the threads end after the batches they run."""
        with self._work:
            self._stopping = True
            unrun = [*self._queue, *self._arrivals]
            left = [self._tickets.pop(waiting.ticket) for waiting in unrun]
            self._queue.clear()
            self._arrivals.clear()
            self._rows.clear()
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

    # From `_serve` down to `_remove` everything runs on a lane's thread.

    def _serve(self, lane: int) -> None:
        while (taken := self._take(lane)) is not None:
            assignment, tickets = taken
            started_s = time.monotonic()
            outcome: dict[str, Tensor] | GearshiftError
            try:
                model = self._fleet.model(assignment.model)
                outcome = batch.run(
                    model.programs[assignment.variant][lane],
                    [ticket.request for ticket in tickets],
                    model.outputs,
                    self._max_batch,
                )
            except Exception as error:
                # Whatever an engine raises ends this batch, not the lane.
                _LOG.exception("%s/%s failed on a batch", assignment.model, assignment.variant)
                outcome = EngineFailed(f"{assignment.model}/{assignment.variant}: {error}")
            finished_s = time.monotonic()
            self._loop.call_soon_threadsafe(
                self._settle, assignment, tickets, outcome, started_s, finished_s
            )

    def _take(self, lane: int) -> tuple[Assignment, list[Ticket]] | None:
        with self._work:
            self._busy_until_s[lane] = 0.0
            self._running[lane] = None
            while True:
                while self._queue:
                    now_s = time.monotonic()
                    assignment = dispatch(
                        self._queue,
                        now_s,
                        self._paces(now_s),
                        max_batch=self._max_batch,
                        overhead_ms=self._telemetry.overhead_ms(now_s),
                    )
                    expired = self._remove(assignment.expired)
                    if expired:
                        self._loop.call_soon_threadsafe(self._expire, expired)
                    if assignment.members:
                        self._busy_until_s[lane] = now_s + assignment.promised_ms / 1000
                        self._running[lane] = assignment.model, assignment.variant
                        return assignment, self._remove(assignment.members)
                if self._stopping:
                    return None
                self._work.wait()

    def _paces(self, now_s: float) -> dict[str, Pace]:
        return {
            name: Pace(model.menu, self._telemetry.slowdown(name, now_s), model.runnable)
            for name in self._rows
            for model in (self._fleet.model(name),)
        }

    def _remove(self, leaving: Sequence[Waiting]) -> list[Ticket]:
        if not leaving:
            return []
        numbers = {waiting.ticket for waiting in leaving}
        # They all stand near the head; what is behind the last of them need not be looked at.
        end = bisect.bisect_right(self._queue, max(map(order, leaving)), key=order)
        self._queue[:end] = [w for w in self._queue[:end] if w.ticket not in numbers]
        for waiting in leaving:
            self._count(waiting, -1)
        return [self._tickets.pop(waiting.ticket) for waiting in leaving]

    # From here on everything runs on the event loop's thread, but `_count`, which needs the lock.

    def _settle(
        self,
        assignment: Assignment,
        tickets: Sequence[Ticket],
        outcome: dict[str, Tensor] | GearshiftError,
        started_s: float,
        finished_s: float,
    ) -> None:
        if isinstance(outcome, GearshiftError):
            for ticket in tickets:
                _fail(ticket, outcome)
            return
        rows = sum(ticket.waiting.rows for ticket in tickets)
        seconds = finished_s - started_s
        offer = self._fleet.model(assignment.model).menu.by_name[assignment.variant]
        self._telemetry.batch(
            assignment.model,
            assignment.variant,
            batch_ms(offer.typical_ms, rows),
            seconds * 1000,
            finished_s,
        )
        self._on_batch(assignment.model, assignment.variant, rows, seconds)
        shares = batch.shares(outcome, [ticket.waiting.rows for ticket in tickets])
        for ticket, mine in zip(tickets, shares, strict=True):
            if not ticket.done.done():  # its caller may have left, or its deadline passed
                ticket.done.set_result(
                    Result(mine, assignment.variant, started_s, finished_s, rows)
                )

    def _expire(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            if ticket.waiting.deadline_s == math.inf:
                _fail(ticket, NotReady(f"no variant of {ticket.request.model} is ready"))
            else:
                _fail(ticket, DeadlinePassed("the deadline could not be met any more; not run"))

    def _count(self, waiting: Waiting, sign: int) -> None:
        rows = self._rows.setdefault(waiting.model, {})
        variant = waiting.choices[0]
        rows[variant] = rows.get(variant, 0) + sign * waiting.rows
        if rows[variant] == 0:
            del rows[variant]
            if not rows:
                del self._rows[waiting.model]


def _fail(ticket: Ticket, error: GearshiftError) -> None:
    if not ticket.done.done():
        ticket.done.set_exception(error)
