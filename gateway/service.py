"""The path of a request, on one page. Read this first.

    bytes -> protocol -> request -> route -> admit -> queue -> dispatch -> engine -> response

A protocol turns bytes into an `InferRequest` and calls `Service.infer`. The decision is made by
`router.route` from a snapshot and kept by `router.dispatch` when a lane comes free. What was learnt
goes back by one path only: a finished batch gives telemetry a sample, which makes the next
snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway import catalog
from gateway.fleet import Fleet, ServedModel
from gateway.lanes import PATIENCE_S, Lanes, Result, Ticket
from gateway.messages import InferRequest, InferResponse
from gateway.metrics import Metrics
from gateway.residency import Residency
from gateway.settings import Settings
from gateway.telemetry import Telemetry
from router import policies
from router.admission import admits
from router.constraints import Constraints, or_default
from router.decision import Decision, nearest_json
from router.errors import (
    CallerLeft,
    DeadlinePassed,
    GearshiftError,
    NotReady,
    Overloaded,
    Unsatisfiable,
)
from router.menu import batch_ms
from router.route import Policy, route

_LOG = logging.getLogger(__name__)

# A caller is watched only once it has waited this long: most are answered sooner, and watching
# costs a task, a tenth of what the whole request does. One that leaves sooner is noticed when the
# watch begins.
_WATCH_AFTER_S = 0.01


# How long an idle lane may take to end. One that runs a batch still has been waited for already.
_ENDING_S = 1.0


class Service:
    """One endpoint in front of every variant of a store.

    Raises:
        catalog.StoreUnusable: the store is missing, or nothing in it can be served.
        SettingsError: the memory limit does not hold one variant of every model.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.catalog = catalog.usable(settings.models)
        self.fleet = Fleet.of(
            self.catalog,
            percentile=settings.latency_percentile,
            usd_per_lane_hour=settings.usd_per_lane_hour,
            max_batch=settings.max_batch,
        )
        self._policy = Policy(
            accuracy_margin=settings.accuracy_margin,
            default=settings.default_constraints,
            rank=policies.get(settings.policy),
        )
        self._telemetry = Telemetry()
        self._residency = Residency(self.fleet, settings, self._policy, metrics)
        self.stopping = False

    async def infer(
        self, request: InferRequest, left: Callable[[], Awaitable[None]]
    ) -> InferResponse:
        """Answer one request as its constraints demand; `sending` must follow.

        Args:
            left: makes an awaitable that returns when the caller has gone.

        Raises:
            GearshiftError: one of its tree, when there is no answer.
        """
        try:
            constraints = or_default(request.constraints, self._policy.default)
            decision = self._accepted(request.model, constraints, request.rows)
            ticket = self._enqueue(request, constraints, decision)
            return self._answered(ticket, decision, await self._result(ticket, left))
        except GearshiftError as error:
            self._metrics.failed(request.model, error, time.monotonic() - request.received_s)
            raise

    def sending(self, request: InferRequest, response: InferResponse) -> None:
        """Count an answer; a protocol calls this when its bytes are ready to be sent.

        Raises:
            DeadlinePassed: it must not be sent any more.
        """
        now_s = time.monotonic()
        total_s = now_s - request.received_s
        if now_s > response.deadline_s:
            error = DeadlinePassed("the deadline passed before the answer could be sent")
            self._metrics.failed(request.model, error, total_s)
            raise error
        self._telemetry.overhead(total_s * 1000 - response.queue_ms - response.infer_ms, now_s)
        self._metrics.answered(request, response, total_s)

    def decide(self, model: str, constraints: Constraints, rows: int) -> Decision:
        """The decision for such a request now, accepted or not, without running it.

        Raises:
            UnknownModel, UnknownVariant: there is none.
            NotReady: the server is stopping.
        """
        return self._decide(model, or_default(constraints, self._policy.default), rows)

    def _decide(self, model: str, constraints: Constraints, rows: int) -> Decision:
        if self.stopping:
            raise NotReady("the server is stopping")
        served = self.fleet.model(model)
        now_s = time.monotonic()
        limit_ms = constraints.max_latency_ms
        # As `Lanes.submit` would queue it.
        due_s = now_s + min(PATIENCE_S, math.inf if limit_ms is None else limit_ms / 1000)
        snapshot = self._lanes.snapshot(served, now_s, due_s)
        return route(constraints, served.menu, snapshot, self._policy, rows)

    def _accepted(self, model: str, constraints: Constraints, rows: int) -> Decision:
        decision = self._decide(model, constraints, rows)
        self._residency.wanted(model, constraints, rows)
        if decision.verdict == "accepted":
            if admits(self._lanes.queued, self._settings.max_queue, constraints.priority):
                return decision
            raise Overloaded(
                f"{self._lanes.queued} requests are queued, the most for priority "
                f"{constraints.priority}",
                retry_after_s=decision.predicted_latency_ms / 1000,
            )
        self._metrics.refused(decision)
        members = nearest_json(decision.nearest)
        if decision.verdict == "overloaded":
            raise Overloaded(decision.why, retry_after_s=decision.retry_after_ms / 1000, **members)
        if decision.verdict == "not-ready":
            raise NotReady(decision.why, self._residency.hurry(model, constraints, rows))
        refused = [refusal.as_json() for refusal in decision.refused]
        raise Unsatisfiable(decision.why, refused=refused, **members)

    def _enqueue(
        self, request: InferRequest, constraints: Constraints, decision: Decision
    ) -> Ticket:
        deadline_s = math.inf
        if constraints.max_latency_ms is not None:
            deadline_s = request.received_s + constraints.max_latency_ms / 1000
        menu = self.fleet.model(request.model).menu
        chosen, *others = decision.allowed
        pace_ms = menu.by_name[chosen].promised_ms[1]
        faster = [name for name in others if menu.by_name[name].promised_ms[1] < pace_ms]
        soft = "latency" in constraints.relax
        if "latency" in decision.relaxed:
            faster = []  # it gave way already, and not for another constraint to follow
        return self._lanes.submit(request, (chosen, *faster), deadline_s, soft)

    async def _result(self, ticket: Ticket, left: Callable[[], Awaitable[None]]) -> Result:
        """The lane's result, unless the deadline passes or the caller leaves first."""
        loop = asyncio.get_running_loop()
        waiting, done = ticket.waiting, ticket.done
        watch: asyncio.Future[None] | None = None

        def give_up(error: GearshiftError) -> None:
            if not done.done():
                done.set_exception(error)

        def start_watch() -> None:
            nonlocal watch
            watch = asyncio.ensure_future(left())
            watch.add_done_callback(lambda _: give_up(CallerLeft("the caller left")))

        timers = [loop.call_later(_WATCH_AFTER_S, start_watch)]
        if waiting.deadline_s < math.inf and not waiting.soft:
            # The loop's timers count whole milliseconds; one too many is corrected on sending.
            after_s = waiting.deadline_s - time.monotonic() + 0.001
            passed = DeadlinePassed("the deadline passed before there was an answer")
            timers.append(loop.call_later(after_s, give_up, passed))
        try:
            return await done
        finally:
            for timer in timers:
                timer.cancel()
            if watch is not None:
                watch.cancel()
            self._lanes.withdraw(ticket)

    def _answered(self, ticket: Ticket, decision: Decision, result: Result) -> InferResponse:
        request, waiting = ticket.request, ticket.waiting
        served = self.fleet.model(request.model)
        late = time.monotonic() > waiting.deadline_s
        if late and not waiting.soft:
            raise DeadlinePassed("the deadline passed while the batch ran")
        if result.variant != decision.variant:
            decision = _shifted(decision, served, result, request)
        if late and "latency" not in decision.relaxed:
            decision = replace(decision, relaxed=(*decision.relaxed, "latency"))
        infer_ms = (result.finished_s - result.started_s) * 1000
        offer = served.menu.by_name[result.variant]
        share = request.rows / result.batch_rows
        cap = request.constraints.max_cost_usd_per_million
        charge = infer_ms * share * offer.usd_per_million_lane_ms
        if cap is not None and "cost" not in decision.relaxed:
            charge = min(charge, cap)  # a slow run is the operator's loss, not the caller's
        return InferResponse(
            outputs=result.outputs,
            decision=decision,
            cost_usd_per_million=charge,
            queue_ms=(result.started_s - request.received_s) * 1000,
            infer_ms=infer_ms,
            deadline_s=math.inf if waiting.soft else waiting.deadline_s,
        )

    @property
    def ready(self) -> bool:
        """Whether every variant is settled, every model has one, and it is not stopping."""
        return self.fleet.ready and not self.stopping

    async def start(self) -> None:
        """Start the lanes, then load and warm the variants; returns when all are settled."""
        settings = self._settings
        self._lanes = Lanes(
            self.fleet,
            self._telemetry,
            count=settings.lanes,
            max_batch=settings.max_batch,
            on_batch=self._metrics.batch,
        )
        self._metrics.watch(
            queued=lambda: self._lanes.queued,
            busy_lanes=lambda: self._lanes.busy,
            lanes=settings.lanes,
            loaded_bytes=lambda: self._residency.loaded_bytes,
        )
        for model in self.fleet.models():
            self._metrics.watch_variants(model.name, model.cards, model.is_ready)
        await self._residency.start(self._lanes.in_use)

    async def stop(self) -> None:
        """Refuse new requests, let the queued ones finish, as long as the settings allow."""
        self.stopping = True
        give_up_s = time.monotonic() + self._settings.drain_seconds
        await self._residency.stop(self._settings.drain_seconds)
        while (self._lanes.queued or self._lanes.busy) and time.monotonic() < give_up_s:
            await asyncio.sleep(0.01)
        self._lanes.refuse_queued()
        if await asyncio.to_thread(self._lanes.join, _ENDING_S):
            self.fleet.close()
        else:
            _LOG.error("a lane still runs its batch; the process ends without it")


def _shifted(
    decision: Decision, served: ServedModel, result: Result, request: InferRequest
) -> Decision:
    """`decision` with the variant that ran instead, since less time was left than predicted."""
    offer = served.menu.by_name[result.variant]
    waited_ms = (result.started_s - request.received_s) * 1000
    return replace(
        decision,
        variant=result.variant,
        reason="shifted-at-dispatch",
        why=f"{decision.variant} was chosen, but would have been late when a lane came free",
        predicted_latency_ms=waited_ms + batch_ms(offer.promised_ms, result.batch_rows),
        accuracy=offer.accuracy,
        cost_usd_per_million=offer.cost_usd_per_million(request.rows),
    )
