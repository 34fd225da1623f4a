"""Admission: what is decided of a request when it comes, and who is let in.

A decision, the operator's pin and canaries before it, room in the queue, refusals that stand for
others that ask the same; and those that may wait for a variant to be loaded.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway.execution.lanes import Lanes
from gateway.lifecycle.fleet import Fleet, ServedModel
from gateway.lifecycle.residency import Residency
from gateway.messages import InferRequest
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.shed import Shed
from router.admission import admits
from router.constraints import Constraints
from router.decision import Decision, nearest_json
from router.errors import (
    CallerLeft,
    DeadlinePassed,
    GearshiftError,
    NotReady,
    Overloaded,
    Unsatisfiable,
)
from router.rollout import pick

# More requests than are ever refused by a refusal that is out of date.
_EVERYBODY = 1 << 30
# The loop's timers count whole milliseconds, and may go off that much early.
_TIMER_S = 0.002


class Admission:
    """Everything runs on the event loop's thread; `open` comes first.

    Attributes:
        stopping: whether nobody is let in any more.
    """

    def __init__(
        self, fleet: Fleet, residency: Residency, settings: Settings, metrics: Metrics
    ) -> None:
        self.stopping = False
        self._fleet = fleet
        self._residency = residency
        self._settings = settings
        self._metrics = metrics
        self._shed: Shed[Overloaded] = Shed(lambda: self.left)
        self._left_more = 0

    def open(self, lanes: Lanes) -> None:
        """Let requests in to these lanes."""
        self._lanes = lanes

    def govern(self, settings: Settings) -> None:
        """Let in by other settings from now on."""
        self._settings = settings

    @property
    def left(self) -> int:
        """A number that grows by one for each request that leaves the queue, and by a lot when it
        turns out that there is room."""
        return self._lanes.left + self._left_more

    def decide(self, model: str, constraints: Constraints, rows: int) -> Decision:
        """The decision for such a request now, accepted or not, without running it.

        Raises:
            UnknownModel, UnknownVariant: there is none.
            NotReady: the server is stopping.
        """
        if self.stopping:
            raise NotReady("the server is stopping")
        served = self._fleet.model(model)  # raises where there is none
        if served.steered and constraints.variant is None:
            return self._steered(served, constraints, rows)
        return self._lanes.route(model, constraints, rows)

    def _steered(self, served: ServedModel, constraints: Constraints, rows: int) -> Decision:
        """The decision where the operator has pinned a variant, or tries canaries."""
        rollout, route = served.rollout, self._lanes.route
        if rollout.pinned in served.menu.by_name:
            decision = route(served.name, replace(constraints, variant=rollout.pinned), rows)
            return decision._replace(why=decision.why.replace("by the request", "by the operator"))
        picked = pick(rollout.canaries, random.random())
        if picked in served.menu.by_name:
            own = replace(constraints, variant=picked, relax=())
            decision = route(served.name, own, rows)
            if decision.verdict == "accepted":
                share = rollout.canaries[decision.variant]
                why = f"{picked} is a canary, which gets {share:.4g} of the requests it may answer"
                return decision._replace(reason="canary", why=why)
            if decision.verdict == "not-ready":
                self._residency.wanted(served.name, own, rows)
        return route(served.name, constraints, rows)

    def _meant(self, model: str, constraints: Constraints) -> Constraints:
        """`constraints`, and the operator's pin where they name no variant."""
        served = self._fleet.model(model)
        if not served.steered or constraints.variant is not None:
            return constraints
        pinned = served.rollout.pinned
        return (
            replace(constraints, variant=pinned) if pinned in served.menu.by_name else constraints
        )

    async def once_loaded(
        self,
        error: NotReady,
        request: InferRequest,
        constraints: Constraints,
        left: Callable[[], Awaitable[None]],
    ) -> Decision:
        """The decision once what the request needs is in memory, where that is soon enough.

        Raises:
            NotReady: `error`, where it is not.
        """
        if self._residency.waiting >= self._settings.max_queue:
            raise error
        deadline_s = math.inf
        if constraints.max_latency_ms is not None and "latency" not in constraints.relax:
            deadline_s = request.received_s + constraints.max_latency_ms / 1000
        needs = self._meant(request.model, constraints)
        until_s = min(deadline_s, time.monotonic() + self._residency.patience_s)
        gone = asyncio.ensure_future(left())
        try:
            while True:
                came = asyncio.ensure_future(
                    self._residency.awaited(request.model, needs, request.rows, until_s)
                )
                await asyncio.wait((gone, came), return_when=asyncio.FIRST_COMPLETED)
                if not came.done():
                    came.cancel()
                    raise CallerLeft("the caller left")
                if not came.result():
                    if time.monotonic() + _TIMER_S >= deadline_s:
                        raise DeadlinePassed("the deadline passed before the variant was loaded")
                    raise error
                try:
                    return self.let_in(request.model, constraints, request.rows)
                except NotReady as again:
                    error = again
        finally:
            gone.cancel()

    def let_in(self, model: str, constraints: Constraints, rows: int) -> Decision:
        """The decision for a request that comes now; it may be queued.

        Refused without a decision while one stands that refused the same.

        Raises:
            GearshiftError: it is not accepted; says why.
        """
        now_s, shed, kind = time.monotonic(), self._shed, (model, constraints, rows)
        refusing = shed.any(now_s)
        held = shed.find(kind, now_s) if refusing and not self.stopping else None
        if held is not None:
            held.count()
            old = held.answer
            again = Overloaded(old.detail, old.retry_after_s, **old.members)
            again.decision = old.decision
            raise again
        try:
            decision = self._accepted(model, constraints, rows)
        except Overloaded as error:
            shed.keep(kind, error, error, self._metrics.undecided(model), now_s)
            raise
        if refusing and shed.is_over(kind):
            self._left_more += _EVERYBODY
        return decision

    def _accepted(self, model: str, constraints: Constraints, rows: int) -> Decision:
        decision = self.decide(model, constraints, rows)
        meant = self._meant(model, constraints)
        self._residency.wanted(model, meant, rows)
        if decision.verdict == "accepted":
            if admits(self._lanes.queued, self._settings.max_queue, constraints.priority):
                return decision
            raise Overloaded(
                f"{self._lanes.queued} requests are queued, the most for priority "
                f"{constraints.priority}",
                retry_after_s=decision.predicted_latency_ms / 1000,
            )
        self._metrics.refused(decision)
        error = self._refusal(decision, meant, rows)
        error.decision = decision
        raise error

    def _refusal(self, decision: Decision, meant: Constraints, rows: int) -> GearshiftError:
        members = nearest_json(decision.nearest)
        if decision.verdict == "overloaded":
            return Overloaded(decision.why, decision.retry_after_ms / 1000, **members)
        if decision.verdict == "not-ready":
            again_s = self._residency.hurry(decision.model, meant, rows)
            if again_s is None:
                again_s = self._lanes.retry_after_s(decision.model)
            return NotReady(decision.why, again_s)
        refused = [refusal.as_json() for refusal in decision.refused]
        return Unsatisfiable(decision.why, refused=refused, **members)
