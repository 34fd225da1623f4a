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
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gateway.execution import batch
from gateway.execution.keeper import Batch, Keeper, Lane, Watcher
from gateway.execution.running import run
from gateway.execution.second_runs import expire, fail
from gateway.execution.settling import Settling
from gateway.execution.tickets import Hung, Ticket
from gateway.hosts import Host, LaneLost, serve_lane
from gateway.lifecycle.fleet import Fleet
from gateway.messages import InferRequest, Told
from router.breaker import Breaker
from router.constraints import Constraints
from router.decision import Decision
from router.dispatch import Assignment
from router.errors import NotReady
from router.queue import Waiting
from router.route import Policy
from router.scheduler import Scheduler


class Lanes:
    """The queue and the threads that serve it.

    Args:
        scheduler: one that nobody else uses, with as many lanes as there are to be.
        hosts: where the programs of each lane live.
        batch_timeout_s: a lane that runs a batch for longer is given up.
    """

    def __init__(
        self,
        fleet: Fleet,
        scheduler: Scheduler,
        hosts: Sequence[Host],
        watcher: Watcher,
        *,
        max_batch: int,
        batch_timeout_s: float = math.inf,
    ) -> None:
        self._fleet = fleet
        self._scheduler = scheduler
        self._max_batch = max_batch
        self._watcher = watcher
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._tickets: dict[int, Ticket] = {}
        self._unpublished = 0
        self.left = 0
        self._unsettled = 0
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self.keeper = Keeper(
            scheduler,
            hosts,
            self._work,
            self._serve,
            self._given_up,
            max_batch=max_batch,
            timeout_s=batch_timeout_s,
        )
        self._settling = Settling(self.keeper, self._requeue, watcher)
        self.keeper.start()

    @property
    def queued(self) -> int:
        """Requests waiting for a lane."""
        return len(self._scheduler.queue.waiting)

    def waiting(self) -> list[InferRequest]:
        """Requests that wait for a lane now; on any thread."""
        with self._lock:
            return [ticket.request for ticket in self._tickets.values()]

    @property
    def busy(self) -> int:
        """Lanes that run a batch now."""
        return self.keeper.busy

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, running, or about to run again."""
        return not (self.queued or self.busy or self._unsettled)

    def breaker(self, model: str, variant: str) -> Breaker:
        """The breaker of a variant, now."""
        with self._lock:
            return self._scheduler.breakers.of(model, variant, time.monotonic())

    def retry_after_s(self, model: str) -> float | None:
        """When the first variant of `model` that is left alone is tried again."""
        variants = self._fleet.held(model).ready
        with self._lock:
            return self._scheduler.breakers.retry_after_s(model, variants, time.monotonic())

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
        with self._lock:
            told = Told(decision.queued, decision.estimate_ms, decision.predicted_latency_ms)
            ticket = Ticket(waiting, request, decision, told, self._loop.create_future())
            self._tickets[waiting.ticket] = ticket
            scheduler.submit((waiting,), time.monotonic())
            self._announce()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Take a request out of the queue; one that a lane runs already is left to finish."""
        with self._lock:
            # Its place may be another one than it had at first.
            queued = self._tickets.pop(ticket.waiting.ticket, None)
            if queued is not None:
                self._scheduler.withdraw(queued.waiting)
                self.left += 1

    def _announce(self) -> None:
        """Have the lanes woken at the end of this turn of the loop; the lock is held."""
        if not self._unpublished:
            self._loop.call_soon(self._publish)
        self._unpublished += 1

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
            return any(
                (assignment.model, assignment.variant) == (model, variant)
                for assignment in self._running()
            ) or any(
                ticket.request.model == model and variant in ticket.decision.allowed
                for ticket in self._tickets.values()
            )

    def holds(self, build: str) -> bool:
        """Whether a lane runs the build of that digest, or a queued request may be answered by it.

        What is about to run again counts as well.
        """
        with self._lock:
            waiting = [ticket.waiting for ticket in self._tickets.values()]
            for assignment in self._running():
                waiting += assignment.members
            return self._unsettled > 0 or any(
                offer.build == build for each in waiting for offer in each.choices.offers
            )

    def _running(self) -> list[Assignment]:
        return [lane.running.assignment for lane in self.keeper.lanes if lane.running is not None]

    def govern(self, policy: Policy, weights: Mapping[str, float]) -> None:
        """Decide by these from now on: see `Scheduler.govern`."""
        with self._lock:
            self._scheduler.govern(policy, weights)

    def change(self, alter: Callable[[], None]) -> None:
        """Alter what is served, while no lane looks; from then on requests meet the new menus."""
        with self._work:
            alter()
            self._scheduler.serve(self._fleet.everything())
            # Requests may wait for what has come.
            self._work.notify_all()

    def replaced(self, model: str, variant: str) -> None:
        """Another build of `variant` serves now: what was learnt of the one before says nothing."""
        with self._lock:
            self._scheduler.replaced(model, variant)

    def refuse_queued(self) -> None:
        """Refuse what is still queued, and let the threads end after the batches they run."""
        with self._work:
            self._stopping = True
            self.keeper.end()
            left = list(self._tickets.values())
            self._tickets.clear()
            for ticket in left:
                self._scheduler.withdraw(ticket.waiting)
            self._work.notify_all()
        for ticket in left:
            fail(ticket, NotReady("the server is stopping"))

    def join(self, patience_s: float) -> bool:
        """Whether all threads have ended within `patience_s`; `refuse_queued` comes first."""
        return self.keeper.join(patience_s)

    # From here to `_pop` everything runs on a lane's thread.

    def _serve(self, lane: Lane, stint: int) -> None:
        serve_lane()
        while (running := self._take(lane, stint)) is not None:
            assignment, tickets, started_s = running
            ran, outcome = run(self._fleet, assignment, tickets, lane, self._max_batch)
            finished_s = time.monotonic()
            took_s = finished_s - started_s - ran.failed_s
            learnt, lost = assignment, False
            if ran.failed:
                # A group that failed teaches nothing.
                answered = [
                    ticket.waiting
                    for ticket, each in zip(tickets, ran.outcomes, strict=True)
                    if not isinstance(each, Exception)
                ]
                learnt = replace(assignment, members=tuple(answered))
                lost = any(isinstance(each, LaneLost) for each in ran.outcomes)
            with self._work:
                # Before anybody is answered: who asks again at once finds the lane free.
                if lane.stint != stint:
                    return  # given up: its requests run elsewhere
                self._scheduler.busy_until_s[lane.number] = 0.0
                lane.running = lane.loaded = None
                if learnt.members:
                    self._scheduler.finished(learnt, took_s * 1000, time.monotonic())
                self.keeper.judge(assignment.model, assignment.variant, outcome)
                self._unsettled += 1
                if lost:
                    self.keeper.mark_lost(lane)
            self._loop.call_soon_threadsafe(
                self._settle, running, ran, finished_s, outcome in ("failure", "fatal")
            )
            if lost:
                self._loop.call_soon_threadsafe(self._watcher.lane_lost)
                if not self.keeper.restored(lane, stint):
                    return

    def _take(self, lane: Lane, stint: int) -> Batch | None:
        with self._work:
            while True:
                if lane.stint != stint:
                    return None
                if self.queued <= self._unpublished:
                    # Nothing, or what this turn of the loop may still bring company for.
                    if self._stopping:
                        return None
                    self._work.wait()
                    continue
                now_s = time.monotonic()
                assignment = self._scheduler.take(lane.number, now_s)
                if assignment.expired:
                    self._loop.call_soon_threadsafe(expire, self._pop(assignment.expired))
                if assignment.members:
                    lane.running = Batch(assignment, self._pop(assignment.members), now_s)
                    return lane.running
                if assignment.wait_until_s > now_s:
                    self._work.wait(assignment.wait_until_s - now_s)
                elif not assignment.expired:
                    self._work.wait()

    def _pop(self, leaving: Sequence[Waiting]) -> list[Ticket]:
        self.left += len(leaving)
        return [self._tickets.pop(waiting.ticket) for waiting in leaving]

    # From here on everything runs on the event loop's thread.

    def _settle(self, running: Batch, ran: batch.Ran, finished_s: float, judged: bool) -> None:
        self._settling.settle(running, ran, finished_s, judged)
        with self._lock:
            self._unsettled -= 1

    def _requeue(self, ticket: Ticket) -> bool:
        """Queue a request again; False where nobody is to run it any more."""
        with self._lock:
            if self._stopping:
                return False
            self._tickets[ticket.waiting.ticket] = ticket
            self._scheduler.requeue(ticket.waiting, time.monotonic())
            self._announce()
        return True

    def _given_up(self, running: Batch | None, after_s: float) -> None:
        """A lane did not come back with this batch: it runs elsewhere."""
        self._watcher.lane_lost()
        if running is not None:
            hung = Hung(f"no answer within {after_s:g} s")
            ran = batch.Ran([hung] * len(running.tickets), 0.0, len(running.tickets))
            self._unsettled += 1
            self._settle(running, ran, time.monotonic(), judged=True)
