"""The path of a request, on one page. Read this first.

    bytes -> protocol -> request -> route -> admit -> queue -> dispatch -> engine -> response

A protocol turns bytes into an `InferRequest` and calls `Service.infer`. `router.route` decides
whether it can be answered in time, and predicts how; the variant is chosen by `router.dispatch`
when a lane comes free. What was learnt goes back by one path only: finished batches and answers
give telemetry samples, which make the next decision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

from gateway import answers
from gateway.assembly import Assembly
from gateway.execution.patience import Patience
from gateway.execution.tickets import Result, Ticket
from gateway.messages import InferRequest, InferResponse, Told
from gateway.shifting import promised, shifted
from router.constraints import Constraints, or_default
from router.decision import Decision
from router.errors import DeadlinePassed, GearshiftError, NotReady
from router.saving import reference_share


class Service(Assembly):
    """One endpoint in front of every variant of a store; as `Assembly`, which joins its parts."""

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
                request, demanded = await door.through(request, constraints, most, left)
                if request.origin.marks is not None:
                    request.origin.marks.prepared_s = time.monotonic()
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
            if request.origin.marks is not None:
                request.origin.marks.routed_s = time.monotonic()
            result = await self._result(ticket, left)
            response = self._answered(ticket, result)
            if kept is not None:
                build = promised(ticket, result.variant).build
                kept.keep(request.model, result.variant, build, mark, response.outputs)
            return response
        except GearshiftError as error:
            told = (ticket.told, ticket.decision.variant) if ticket else None
            self._failed(request, error, told)
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
            self._failed(request, error, (response.told, response.decision.variant))
            raise error
        if not response.cached:  # which teaches nothing of lanes
            total_ms = total_s * 1000
            self._telemetry.overhead(total_ms - response.queue_ms - response.infer_ms, now_s)
            self._telemetry.answer(*response.told, total_ms, "success", now_s)
        self._journal.answered(request, response, total_s)

    def _failed(
        self, request: InferRequest, error: GearshiftError, promise: tuple[Told, str] | None
    ) -> None:
        """Count a failure.

        Args:
            promise: what was foreseen of its latency, and the variant that it was foreseen of.
        """
        now_s = time.monotonic()
        age_s = now_s - request.received_s
        if promise is not None and isinstance(error, DeadlinePassed):
            told, variant = promise
            self._telemetry.answer(*told, age_s * 1000, "dropped", now_s)
            if told.estimate_ms > 0:
                self._metrics.exceeded(request.model, variant)
        self._journal.failed(request.model, error, age_s, request.origin, request)

    def decide(self, model: str, constraints: Constraints, rows: int) -> Decision:
        """The decision for such a request now, accepted or not, without running it.

        Raises:
            UnknownModel, UnknownVariant: there is none.
            NotReady: the server is stopping.
        """
        return self._admission.decide(model, or_default(constraints, self._policy.default), rows)

    async def _result(self, ticket: Ticket, left: Callable[[], Awaitable[None]]) -> Result:
        """The lane's result, unless the deadline passes or the caller leaves first."""
        patience = Patience(ticket, left)
        try:
            return await ticket.done
        finally:
            patience.end()
            self._lanes.withdraw(ticket)

    def _answered(self, ticket: Ticket, result: Result) -> InferResponse:
        request, waiting, decision = ticket.request, ticket.waiting, ticket.decision
        late = time.monotonic() > waiting.deadline_s
        if late and not waiting.soft:
            raise DeadlinePassed("the deadline passed while the batch ran")
        offer = promised(ticket, result.variant)
        if result.failed or result.variant != decision.variant:
            foreseen = promised(ticket, decision.variant)
            left_ms = (waiting.deadline_s - result.started_s) * 1000
            decision = shifted(decision, offer, foreseen, result, request.rows, left_ms)
        if late and "latency" not in decision.relaxed:
            decision = decision._replace(relaxed=(*decision.relaxed, "latency"))
        infer_ms = (result.finished_s - result.started_s) * 1000
        share = request.rows / result.batch_rows
        held = self.fleet.held(request.model)
        reference = reference_share(offer, held.menu.by_name.get(held.reference), result.batch_rows)
        cap = request.constraints.max_cost_usd_per_million
        charge = infer_ms * share * offer.usd_per_million_lane_ms
        on_reference = charge * reference
        if cap is not None and "cost" not in decision.relaxed:
            charge = min(charge, cap)  # a slow run is the operator's loss, not the caller's
        if held.rollout.shadows:
            self._shadows.answered(request, result.outputs)
        return InferResponse(
            outputs=result.outputs,
            decision=decision,
            cost_usd_per_million=charge,
            queue_ms=(result.started_s - request.received_s) * 1000,
            infer_ms=infer_ms,
            deadline_s=math.inf if waiting.soft else waiting.deadline_s,
            told=ticket.told,
            reference_usd_per_million=on_reference,
        )
