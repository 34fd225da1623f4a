"""Metrics: what happens is told here, counted, and shown to Prometheus. Start in `declared`.

`Metrics` counts requests and batches, and as `Events` what befalls the rest; `answers` counts what
was answered, `variants` reads what variants are when it is asked, `families` keeps the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gateway.messages import UNTOLD, InferRequest, InferResponse, Origin
from gateway.metrics import variants
from gateway.metrics.answers import Answers, deadlines_of
from gateway.metrics.events import OTHERS, Events
from gateway.metrics.families import Row, Spread, Value
from gateway.metrics.variants import Shown
from gateway.statistics import Statistics, Totals
from router import deadlines
from router.constraints import NONE, Constraints, or_default
from router.decision import Decision
from router.errors import EngineFailed, GearshiftError

__all__ = ["NO_VARIANT", "OTHERS", "UNKNOWN_MODEL", "Metrics", "Shown"]

UNKNOWN_MODEL = "unknown"
NO_VARIANT = "none"
NO_TENANT = "none"
NO_REASON = "none"

# What may befall a variant.
_LIFE = (
    "variant_loads_total", "variant_load_failures_total", "variant_evictions_total",
    "variant_frees_total", "variant_swaps_total", "batch_failures_total", "retries_total",
)  # fmt: skip

_MOST_TENANTS = 100
_NO_CLASSES = frozenset((UNTOLD.tenant, NO_TENANT))
# Errors that a decision ended in, whose codes are its verdicts.
_VERDICTS = frozenset(("unsatisfiable", "overloaded", "not-ready"))


class Metrics(Events):
    """Counts what happens. Everything but the gauges is called on the event loop's thread.

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
        self._batches: dict[tuple[str, str], tuple[Spread, Spread, Totals]] = {}
        self._failures: dict[tuple[str, str, str], tuple[Value, Spread]] = {}
        self._busy = self._families["lane_busy_seconds_total"].value()

    def govern(self, default: Constraints, percentile: int) -> None:
        """Judge by these from now on.

        Args:
            default: what holds for a request that demands nothing.
            percentile: of latency, that is promised.
        """
        self.default = default
        self._set("promised_percentile", percentile / 100)

    def watch(
        self,
        *,
        queued: Callable[[], Mapping[str, int]],
        ages_s: Callable[[], Mapping[str, float]],
        busy_lanes: Callable[[], float],
        lost_lanes: Callable[[], float],
        loaded_bytes: Callable[[], float],
        lanes: int,
    ) -> None:
        """Read the gauges of queue, lanes and memory from these functions at each scrape.

        Args:
            queued: requests that wait, by model.
            ages_s: age of the oldest request that waits for a lane, by model.
        """
        for name, by_model in (("queued_requests", queued), ("queue_age_seconds", ages_s)):
            self._families[name].probe = lambda of=by_model: self._of_models(of())
        self._probe("busy_lanes", busy_lanes)
        self._probe("lost_lanes", lost_lanes)
        self._probe("loaded_bytes", loaded_bytes)
        self._set("lanes", lanes)

    def watch_variants(self, shown: Callable[[], Iterable[Shown]]) -> None:
        """Show at each scrape what variants there are."""
        variants.watch(self._families, shown, lambda: self.default)

    def watch_cache(self, kept_bytes: Callable[[], float]) -> None:
        """Read what the response cache takes from this function at each scrape."""
        self._probe("response_cache_bytes", kept_bytes)

    def watch_records(self, lines: Callable[[], int], traces: Callable[[], int]) -> None:
        """Read what access log and traces lost from these functions at each scrape."""
        self._probe("access_log_dropped_total", lines)
        self._probe("traces_dropped_total", traces)

    def watch_model(self, model: str, variants: Iterable[str] = ()) -> None:
        """Count requests for `model` under its own name from now on, and what its variants do."""
        self._models |= {model}
        families = self._families
        # A series that begins at 1 does not seem to grow: the first event would be seen by nobody.
        families["shed_total"].value(model)
        families["reference_usd_total"].value(model)
        families["overhead_seconds"].spread(model)
        for timely in ("true", "false"):
            families["accuracy_credit_total"].value(model, timely)
        deadlines_of(families, model, self._tenant(UNTOLD.tenant))
        for variant in variants:
            for name in _LIFE:
                families[name].value(model, variant)
            for outcome in ("within", "exceeded"):
                families["predictions_total"].value(model, variant, outcome)

    # Requests

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
        outcome = deadlines.of_failure(error, deadlines.limit_ms(stated, self.default))
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

    # Lanes

    def batch(self, model: str, variant: str, rows: int, seconds: float) -> None:
        """One batch ran."""
        key = model, variant
        known = self._batches.get(key)
        if known is None:
            known = self._batches[key] = (
                self._families["batch_seconds"].spread(*key),
                self._families["batch_rows"].spread(*key),
                self.statistics.totals(*key),
            )
        time, size, totals = known
        totals.batch(rows, seconds)
        time.observe(seconds)
        size.observe(rows)

    def batch_failed(self, model: str, variant: str, retried: int) -> None:
        """One batch failed at least in part; so many of its requests are run again."""
        self._count("batch_failures_total", model, variant)
        if retried:
            self._families["retries_total"].value(model, variant).inc(retried)

    def lane_ran(self, seconds: float) -> None:
        """A lane was busy with a batch for so long, however it ended."""
        self._busy.value += seconds

    def lane_lost(self) -> None:
        """A lane's process ended, or its engine did not come back."""
        self._count("lane_losses_total")

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
            reason = code if code in _VERDICTS else NO_REASON
            known = self._failures[key] = (
                self._families["requests_total"].value(
                    model, NO_VARIANT, code, reason, self._tenant(tenant)
                ),
                self._families["request_seconds"].spread(model, NO_VARIANT, code),
            )
        return known

    def _deadline(self, model: str, outcome: str, tenant: str) -> None:
        deadlines_of(self._families, model, self._tenant(tenant))[outcome].inc()

    def _of_models(self, found: Mapping[str, float]) -> Iterable[Row]:
        return [((model,), found.get(model, 0)) for model in sorted(self._models | set(found))]
