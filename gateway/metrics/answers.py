"""What is counted of an answer: the series of one kind of answer, looked up once.

This is on the path of every request: nothing is formatted here and nothing looked up by name.
"""

from __future__ import annotations

from gateway.messages import InferRequest, InferResponse
from gateway.metrics.families import Families, Value
from gateway.statistics import Totals
from router import deadlines
from router.constraints import Constraints
from router.saving import shift


def deadlines_of(families: Families, model: str, tenant: str) -> dict[str, Value]:
    """The series of requests with a deadline, by outcome.

    All of them at once: of a series that begins with a burst Prometheus does not see the burst.
    """
    family = families["deadlines_total"]
    return {outcome: family.value(model, outcome, tenant) for outcome in deadlines.OUTCOMES}


class Answers:
    """The series of answers by one variant of a model, for one reason, to one class of tenants."""

    __slots__ = (
        "_charged", "_chosen", "_credit", "_deadline", "_exceeded", "_families", "_floor", "_infer",
        "_labels", "_late_credit", "_latency", "_overhead", "_queue", "_ratio", "_reference",
        "_relaxed_deadline", "_relaxed_floor", "_requests", "_totals", "_within",
    )  # fmt: skip

    def __init__(
        self, families: Families, totals: Totals, model: str, variant: str, reason: str, tenant: str
    ) -> None:
        self._families, self._totals = families, totals
        self._labels = model, variant, reason
        self._requests = families["requests_total"].value(model, variant, "ok", reason, tenant)
        self._chosen = families["decisions_total"].value(model, reason)
        self._latency = families["request_seconds"].spread(model, variant, "ok")
        self._queue = families["queue_seconds"].spread(model, variant)
        self._infer = families["infer_seconds"].spread(model, variant)
        self._overhead = families["overhead_seconds"].spread(model)
        self._charged = families["charged_usd_total"].value(model, variant, tenant)
        self._reference = families["reference_usd_total"].value(model)
        credit = families["accuracy_credit_total"]
        self._credit, self._late_credit = credit.value(model, "true"), credit.value(model, "false")
        series, floors = deadlines_of(families, model, tenant), families["accuracy_floors_total"]
        self._deadline, self._relaxed_deadline = series["kept"], series["relaxed"]
        self._floor = floors.value(model, "kept", tenant)
        self._relaxed_floor = floors.value(model, "relaxed", tenant)
        predictions = families["predictions_total"]
        self._within = predictions.value(model, variant, "within")
        self._exceeded = predictions.value(model, variant, "exceeded")
        self._ratio = families["prediction_ratio"].spread(model, variant)

    def count(
        self,
        request: InferRequest,
        response: InferResponse,
        constraints: Constraints,
        total_s: float,
    ) -> None:
        """One answer, `total_s` after its request's last byte.

        Args:
            constraints: what the request demands, the operator's defaults included.
        """
        decision = response.decision
        queue_s, infer_s = response.queue_ms / 1000, response.infer_ms / 1000
        trace = request.origin.trace
        self._totals.answered(request.rows, response, total_s)
        self._requests.value += 1
        self._chosen.value += 1
        if trace is None or not trace.sampled:
            self._latency.observe(total_s)
        else:
            self._latency.observe_traced(total_s, trace)
        self._queue.observe(queue_s)
        self._infer.observe(infer_s)
        self._overhead.observe(max(total_s - queue_s - infer_s, 0.0))
        self._charged.value += response.cost_usd_per_million / 1e6
        self._reference.value += response.reference_usd_per_million / 1e6
        limit_ms = constraints.max_latency_ms
        if limit_ms is None:
            self._credit.value += decision.accuracy
        elif deadlines.of_answer(total_s, limit_ms) == "kept":
            self._credit.value += decision.accuracy
            self._deadline.value += 1
        else:
            self._late_credit.value += decision.accuracy
            self._relaxed_deadline.value += 1
        if constraints.min_accuracy is not None:
            (self._relaxed_floor if "accuracy" in decision.relaxed else self._floor).value += 1
        told = response.told
        # What was told to one that waits for company is its deadline, which predicts nothing; and
        # what no lane ran for was not predicted.
        if told.estimate_ms > 0 and told.bound_ms > 0 and not response.cached:
            ratio = total_s * 1000 / told.bound_ms
            self._ratio.observe(ratio)
            (self._within if ratio <= 1 else self._exceeded).value += 1
        if decision.relaxed:
            for constraint in decision.relaxed:
                self._families["relaxed_total"].value(request.model, constraint).inc()
        choices = decision.choices
        if choices is not None and choices.offers[0].name != decision.variant:
            shifted = shift(decision, choices, constraints, request.rows)
            if shifted is not None:
                model, variant, _ = self._labels
                self._families["shifts_total"].value(model, shifted[0], variant, shifted[1]).inc()
