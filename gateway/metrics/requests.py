"""What becomes of requests: answered, failed, shed, refused, found in the response cache."""

from __future__ import annotations

from collections.abc import Callable

from gateway.messages import UNTOLD, InferRequest, InferResponse, Origin
from gateway.metrics.answers import Answers, deadlines_of
from gateway.metrics.events import OTHERS, Events
from gateway.metrics.families import Spread, Value
from gateway.statistics import Statistics
from router import deadlines
from router.constraints import NONE, Constraints, or_default
from router.decision import Decision
from router.errors import EngineFailed, GearshiftError

UNKNOWN_MODEL = "unknown"
NO_VARIANT = "none"
NO_TENANT = "none"
NO_REASON = "none"

_MOST_TENANTS = 100
_NO_CLASSES = frozenset((UNTOLD.tenant, NO_TENANT))
# Errors that a decision ended in, whose codes are its verdicts.
_VERDICTS = frozenset(("unsatisfiable", "overloaded", "not-ready"))


class Requests(Events):
    """Counts requests. All of it is called on the event loop's thread.

    Attributes:
        default: what holds for a request that demands nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.statistics = Statistics()
        self.default: Constraints = NONE
        self._models: frozenset[str] = frozenset()
        self._tenants: frozenset[str] = _NO_CLASSES
        # Looking a series up by its labels costs as much as using it.
        self._answers: dict[tuple[str, str, str, str], Answers] = {}
        self._failures: dict[tuple[str, str, str], tuple[Value, Spread]] = {}

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """One request was answered, `total_s` after its last byte."""
        decision, constraints = response.decision, request.constraints
        key = request.model, decision.variant, decision.reason, request.origin.tenant
        answers = self._answers.get(key)
        if answers is None:
            model, variant, reason, tenant = key
            totals = self.statistics.totals(model, variant)
            answers = self._answers[key] = Answers(
                self._families, totals, model, variant, reason, self._tenant(tenant)
            )
        if self.default is not NONE:
            constraints = or_default(constraints, self.default)
        answers.count(request, response, constraints, total_s)

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        origin: Origin = UNTOLD,
        request: InferRequest | None = None,
    ) -> None:
        """One request ended without an answer, `total_s` after its last byte."""
        model = self._known(model)
        requests, latency = self._failed(model, error.code, origin.tenant)
        requests.value += 1
        if origin.trace is None or not origin.trace.sampled:
            latency.observe(total_s)
        else:
            latency.observe_traced(total_s, origin.trace)
        if isinstance(error, EngineFailed) and error.variant:
            self.statistics.totals(model, error.variant).failure(total_s)
        stated = None if request is None else request.constraints
        outcome = deadlines.of_failure(error, deadlines.limit_ms(stated, self.default), total_s)
        if outcome is not None:
            self._deadline(model, outcome, origin.tenant)

    def exceeded(self, model: str, variant: str) -> None:
        """One request was told how long it would take, and its deadline passed instead."""
        self._count("predictions_total", model, variant, "exceeded")

    def undecided(self, model: str) -> Callable[[], None]:
        """Counts requests that a refusal ended which was decided before."""
        return self._families["shed_total"].value(self._known(model)).inc

    def shed(
        self,
        model: str,
        error: GearshiftError,
        tenant: str = UNTOLD.tenant,
        constraints: Constraints = NONE,
    ) -> Callable[[], None]:
        """What counts one such request, which demanded `constraints`, and how it ended."""
        model = self._known(model)
        requests, latency = self._failed(model, error.code, tenant)
        shed = self._families["shed_total"].value(model)
        deadline = Value()  # nobody's, where there is none
        if deadlines.limit_ms(constraints, self.default) is not None:
            deadline = deadlines_of(self._families, model, self._tenant(tenant))["shed"]

        def count() -> None:
            requests.value += 1
            latency.observe(0.0)
            shed.value += 1
            deadline.value += 1

        return count

    def refused(self, decision: Decision) -> None:
        """One request was refused by a decision."""
        self._count("decisions_total", decision.model, decision.verdict)
        for constraint in {refusal.constraint for refusal in decision.refused}:
            self._count("constraint_misses_total", decision.model, constraint)

    def looked_up(self, model: str, variant: str, *, found: bool) -> None:
        """One request that `variant` shall answer was looked up in the response cache."""
        self._count("response_cache_total", model, "hit" if found else "miss")
        if not found:
            self.statistics.totals(model, variant).misses += 1

    def _known(self, model: str) -> str:
        return model if model in self._models else UNKNOWN_MODEL

    def _tenant(self, tenant: str) -> str:
        if tenant not in self._tenants:
            if len(self._tenants - _NO_CLASSES) >= _MOST_TENANTS:
                return OTHERS
            self._tenants |= {tenant}
        return tenant

    def _failed(self, model: str, code: str, tenant: str) -> tuple[Value, Spread]:
        key = model, code, tenant
        known = self._failures.get(key)
        if known is None:
            known = self._failures[key] = (
                self._without_answer(model, code, tenant),
                self._families["request_seconds"].spread(model, NO_VARIANT, code),
            )
        return known

    def _without_answer(self, model: str, code: str, tenant: str) -> Value:
        reason = code if code in _VERDICTS else NO_REASON
        family = self._families["requests_total"]
        return family.value(model, NO_VARIANT, code, reason, self._tenant(tenant))

    def _deadline(self, model: str, outcome: str, tenant: str) -> None:
        deadlines_of(self._families, model, self._tenant(tenant))[outcome].inc()
