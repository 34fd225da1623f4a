"""The path of a request, on one page. Read this first.

    bytes -> protocol -> request -> route -> admit -> queue -> dispatch -> engine -> response

A protocol turns bytes into an `InferRequest` and calls `Service.infer`. `router.route` decides
whether it can be answered in time, and predicts how; the variant is chosen by `router.dispatch`
when a lane comes free. What was learnt goes back by one path only: finished batches and answers
give telemetry samples, which make the next decision.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from gateway import answers, catalog, hosts, signature
from gateway.admission import Admission
from gateway.answers import Answers
from gateway.directives import Directives
from gateway.ending import Ending
from gateway.fleet import Fleet, ServedModel
from gateway.lanes import Lanes
from gateway.messages import InferRequest, InferResponse, Told
from gateway.metrics import Metrics
from gateway.operator import Operator
from gateway.reload import Reloaded, merged
from gateway.residency import Residency
from gateway.settings import Settings, SettingsError
from gateway.shadow import Shadows
from gateway.tickets import Result, Ticket
from gateway.watch import Watch
from router import policies
from router.breaker import Breaker, Breakers, Terms
from router.constraints import Constraints, or_default
from router.decision import Decision
from router.errors import (
    CallerLeft,
    DeadlinePassed,
    GearshiftError,
    NotReady,
)
from router.menu import Offer
from router.route import Policy
from router.scheduler import Scheduler
from router.telemetry import Telemetry

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
        SettingsError: the memory limit does not hold one variant of every model, or a weight is
            for none of them.

    Args:
        read: reads the settings again, from where they came.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        read: Callable[[], Settings] | None = None,
    ) -> None:
        self._settings = settings
        self._read = read or (lambda: settings)
        self._metrics = metrics
        check = signature.checker(settings.verify_signatures)
        watch = Watch(settings.models, check)
        self.catalog = catalog.usable(settings.models, check)
        directives = Directives(settings.state_folder)
        self.fleet = Fleet.of(
            self.catalog,
            percentile=settings.latency_percentile,
            usd_per_lane_hour=settings.usd_per_lane_hour,
            max_batch=settings.max_batch,
            rollout=directives.of,
        )
        _weights_are_known(settings, self.fleet)
        self._policy = Policy(
            accuracy_margin=settings.accuracy_margin,
            default=settings.default_constraints,
        )
        self._telemetry = Telemetry(settings.latency_percentile)
        self._residency = Residency(self.fleet, settings, self._policy, metrics)
        self._admission = Admission(self.fleet, self._residency, settings, metrics)
        self._shadows = Shadows(self.fleet, settings, metrics, lambda: self._lanes.idle)
        self.operator = Operator(
            watch, self.fleet, self._residency, directives, metrics, self._changed
        )
        cache_bytes = int(settings.response_cache_mb * 1e6)
        self._answers = Answers(cache_bytes) if cache_bytes else None
        metrics.watch_cache(lambda: self._answers.bytes if self._answers else 0)
        self._started = False

    async def infer(
        self, request: InferRequest, left: Callable[[], Awaitable[None]]
    ) -> InferResponse:
        """Answer one request as its constraints demand; `sending` must follow.

        Args:
            left: makes an awaitable that returns when the caller has gone.

        Raises:
            GearshiftError: one of its tree, when there is no answer.
        """
        ticket: Ticket | None = None
        try:
            constraints = demanded = or_default(request.constraints, self._policy.default)
            door = self.fleet.model(request.model).door
            if door is not None and door.is_for(request.inputs):
                most = self._settings.max_queue
                request, demanded = await door.through(request, constraints, most)
            kept, mark = self._answers, b""
            if kept is not None:
                mark = await kept.mark(request.inputs)
            try:
                decision = self._admission.let_in(request.model, demanded, request.rows)
            except NotReady as error:
                decision = await self._admission.once_loaded(error, request, constraints, left)
            if kept is not None:
                build = self.fleet.model(request.model).menu.by_name[decision.variant].build
                outputs = kept.find(request.model, decision.variant, build, mark)
                self._metrics.looked_up(request.model, decision.variant, found=outputs is not None)
                if outputs is not None:
                    return answers.remembered(request, constraints, decision, outputs)
            ticket = self._lanes.submit(request, constraints, decision)
            result = await self._result(ticket, left)
            response = self._answered(ticket, result)
            if kept is not None:
                build = _promised(ticket, result.variant).build
                kept.keep(request.model, result.variant, build, mark, response.outputs)
            return response
        except GearshiftError as error:
            self._failed(request, error, ticket.told if ticket else None)
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
            self._failed(request, error, response.told)
            raise error
        if not response.cached:  # which teaches nothing of lanes
            total_ms = total_s * 1000
            self._telemetry.overhead(total_ms - response.queue_ms - response.infer_ms, now_s)
            self._telemetry.answer(*response.told, total_ms, "success", now_s)
        self._metrics.answered(request, response, total_s)

    def _failed(self, request: InferRequest, error: GearshiftError, told: Told | None) -> None:
        now_s = time.monotonic()
        age_s = now_s - request.received_s
        if told is not None and isinstance(error, DeadlinePassed):
            self._telemetry.answer(*told, age_s * 1000, "dropped", now_s)
        self._metrics.failed(request.model, error, age_s)

    def decide(self, model: str, constraints: Constraints, rows: int) -> Decision:
        """The decision for such a request now, accepted or not, without running it.

        Raises:
            UnknownModel, UnknownVariant: there is none.
            NotReady: the server is stopping.
        """
        return self._admission.decide(model, or_default(constraints, self._policy.default), rows)

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

    def _answered(self, ticket: Ticket, result: Result) -> InferResponse:
        request, waiting, decision = ticket.request, ticket.waiting, ticket.decision
        late = time.monotonic() > waiting.deadline_s
        if late and not waiting.soft:
            raise DeadlinePassed("the deadline passed while the batch ran")
        offer = _promised(ticket, result.variant)
        if result.failed or result.variant != decision.variant:
            foreseen = _promised(ticket, decision.variant)
            decision = _shifted(decision, offer, foreseen, result, request.rows)
        if late and "latency" not in decision.relaxed:
            decision = replace(decision, relaxed=(*decision.relaxed, "latency"))
        infer_ms = (result.finished_s - result.started_s) * 1000
        share = request.rows / result.batch_rows
        cap = request.constraints.max_cost_usd_per_million
        charge = infer_ms * share * offer.usd_per_million_lane_ms
        if cap is not None and "cost" not in decision.relaxed:
            charge = min(charge, cap)  # a slow run is the operator's loss, not the caller's
        if self.fleet.held(request.model).rollout.shadows:
            self._shadows.answered(request, result.outputs)
        return InferResponse(
            outputs=result.outputs,
            decision=decision,
            cost_usd_per_million=charge,
            queue_ms=(result.started_s - request.received_s) * 1000,
            infer_ms=infer_ms,
            deadline_s=math.inf if waiting.soft else waiting.deadline_s,
            told=ticket.told,
        )

    def reload(self) -> Reloaded:
        """Read the settings again and let them hold, as far as they can without a restart.

        Raises:
            SettingsError: they make no sense, by themselves or for what is served; nothing has
                changed then.
        """
        settings, told = merged(self._settings, self._read())
        _weights_are_known(settings, self.fleet)
        policy = Policy(settings.accuracy_margin, settings.default_constraints)
        self._residency.govern(settings, policy)
        self._settings, self._policy = settings, policy
        self._admission.govern(settings)
        if "usd_per_lane_hour" in told.changed:
            terms = replace(self.fleet.terms, usd_per_lane_hour=settings.usd_per_lane_hour)
            self._lanes.change(partial(self.fleet.offer_anew, terms))
        self._lanes.govern(policy, settings.model_weights)
        return told

    @property
    def left(self) -> int:
        """A number that grows when a refusal may be out of date: see `Admission.left`."""
        return self._admission.left

    @property
    def stopping(self) -> bool:
        """Whether nobody is let in any more."""
        return self._admission.stopping

    def breaker(self, model: str, variant: str) -> Breaker:
        """Whether requests are kept from a variant that failed, and until when."""
        return self._lanes.breaker(model, variant)

    def healthy(self, model: str, variant: str) -> bool:
        """Whether a variant is loaded and warm, and requests are not kept from it."""
        served = self.fleet.everything().get(model)
        ready = served is not None and served.is_ready(variant)
        return ready and self.breaker(model, variant).state != "open"

    def check_healthy(self, model: str, variant: str) -> None:
        """Raises where requests are kept from a variant that is ready.

        Raises:
            NotReady: it failed, and is left alone for a while.
        """
        breaker = self.breaker(model, variant)
        if breaker.state == "open":
            left_s = max(0.0, breaker.until_s - time.monotonic())
            raise NotReady(
                f"{model}/{variant} failed too often and is left alone for {left_s:.3g} s", left_s
            )

    def lanes_report(self) -> dict[str, object]:
        """What the lanes do now, and which variants are left alone after they failed."""
        return self._lanes.keeper.report() if self._started else {}

    @property
    def live(self) -> bool:
        """Whether the process can serve, or will; where not, only another one can."""
        return not self._started or self._lanes.keeper.alive

    @property
    def ready(self) -> bool:
        """Whether every variant is settled, every model has one, and it is not stopping."""
        return self.fleet.ready and not self.stopping

    async def start(self) -> None:
        """Start the lanes, then load and warm the variants; returns when all are settled."""
        settings = self._settings
        scheduler = Scheduler(
            self.fleet.everything(),
            self._telemetry,
            policies.get(settings.policy),
            self._policy,
            lanes=settings.lanes,
            max_batch=settings.max_batch,
            weights=settings.model_weights,
            breakers=Breakers(
                Terms(failures=settings.breaker_failures, first_s=settings.breaker_seconds)
            ),
        )
        kind = settings.lane_kind
        self._hosts = [hosts.open_one(kind, lane) for lane in range(settings.lanes)]
        self._lanes = Lanes(
            self.fleet,
            scheduler,
            self._hosts,
            self._metrics,
            max_batch=settings.max_batch,
            batch_timeout_s=settings.batch_timeout_seconds,
        )
        self._admission.open(self._lanes)
        self._metrics.watch(
            queued=lambda: self._lanes.queued + self._residency.waiting,
            busy_lanes=lambda: self._lanes.busy,
            lost_lanes=lambda: self._lanes.keeper.lost,
            lanes=settings.lanes,
            loaded_bytes=lambda: self._residency.loaded_bytes + self._shadows.loaded_bytes(),
        )
        for model in self.fleet.everything().values():
            self._changed(model)
        self._started = True
        await self._residency.start(
            self._lanes.in_use,
            self._hosts,
            change=self._lanes.change,
            holds=self._lanes.holds,
            replaced=self._lanes.replaced,
        )
        if not self.stopping:
            self.operator.start(self._lanes.change, settings.watch_seconds)

    def _changed(self, model: ServedModel) -> None:
        """Show what `model` consists of now."""
        healthy = partial(self.healthy, model.name)
        breaker = partial(self.breaker, model.name)
        self._metrics.watch_variants(model.name, model.states, healthy, breaker)
        self._shadows.tidy()

    async def stop(self, starting: asyncio.Task[None], ending: Ending) -> None:
        """Refuse new requests, let the queued ones finish.

        Args:
            starting: runs `start`, and may not have done so to its end: no variant more is begun.
            ending: how long all of that may take.
        """
        self._admission.stopping = self.fleet.closing = True
        await asyncio.wait({starting}, timeout=ending.left_s())
        loading = not starting.done()
        starting.cancel()
        if not self._started:
            return
        self.operator.stop()
        await self._shadows.stop()
        await self._residency.stop(ending.left_s())
        while not self._lanes.idle and ending.left_s():
            await asyncio.sleep(0.01)
        self._lanes.refuse_queued()
        if loading:
            _LOG.error("a variant is still being loaded; the process ends without it")
        elif await asyncio.to_thread(self._lanes.join, min(_ENDING_S, ending.step_s())):
            self.fleet.close()
            for host in self._hosts:
                host.close()
        else:
            _LOG.error("a lane still runs its batch; the process ends without it")


def _weights_are_known(settings: Settings, fleet: Fleet) -> None:
    unknown = sorted(settings.model_weights.keys() - fleet.everything().keys())
    if unknown:
        known = ", ".join(fleet.names())
        raise SettingsError(f"model_weights: expected some of {known}, got {unknown[0]!r}")


def _promised(ticket: Ticket, variant: str) -> Offer:
    """The build of `variant` that the request was promised; another may have its name by now."""
    return next(offer for offer in ticket.waiting.choices.offers if offer.name == variant)


def _shifted(
    decision: Decision, ran: Offer, foreseen: Offer, result: Result, rows: int
) -> Decision:
    """`decision` with the variant that ran instead of the one that was foreseen.

    What was predicted at arrival stands: the variant was chosen to keep it.
    """
    less = "less" if ran.row_ms < foreseen.row_ms else "more"
    return replace(
        decision,
        variant=ran.name,
        reason="retried" if result.failed else "shifted-at-dispatch",
        why=f"run again on it after {result.failed} had failed"
        if result.failed
        else f"chosen when a lane came free: {less} time was left than predicted, "
        f"which was for {foreseen.name}",
        accuracy=ran.accuracy,
        cost_usd_per_million=ran.cost_usd_per_million(rows),
        allowed=(ran.name, *[name for name in decision.allowed if name != ran.name]),
        refused=tuple([refusal for refusal in decision.refused if refusal.variant != ran.name]),
    )
