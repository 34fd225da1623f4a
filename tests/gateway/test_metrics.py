"""Metrics: what is counted, and under which labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.messages import InferRequest, InferResponse, Origin, Told, Trace
from gateway.metrics import Metrics, Shown
from gateway.metrics.declared import BY_NAME, LABELS, METRICS
from router.card import CARD_FILE, VariantCard
from router.choices import Choices
from router.constraints import NONE, Constraints, Floor
from router.decision import Decision, Refusal
from router.errors import (
    CallerLeft,
    DeadlinePassed,
    EngineFailed,
    Overloaded,
    UnknownModel,
    Unsatisfiable,
)
from router.menu import offer
from tests.router import builders
from tests.stores import write_variant

ORIGIN = Origin(tenant="gold")
REQUEST = InferRequest("m", {}, 1, Constraints(max_latency_ms=10.0), 0.0, ORIGIN)
RESPONSE = InferResponse(
    outputs={},
    decision=Decision(
        "m", "accepted", "accuracy", variant="int8", reason="most-accurate", accuracy=0.9
    ),
    cost_usd_per_million=2.0,
    queue_ms=1.0,
    infer_ms=2.0,
    deadline_s=1.0,
    told=Told(False, 4.0, 5.0),
    reference_usd_per_million=6.0,
)
INT8 = {"model": "m", "variant": "int8"}


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.watch(
        queued=lambda: {"m": 3},
        ages_s=lambda: {"m": 0.25},
        busy_lanes=lambda: 1,
        lost_lanes=lambda: 0,
        loaded_bytes=lambda: 5e6,
        lanes=2,
    )
    made.watch_model("m")
    made.watch_model("idle")
    return made


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"gearshift_{name}", labels) or 0.0


def has(metrics: Metrics, name: str, **labels: str) -> bool:
    return metrics.registry.get_sample_value(f"gearshift_{name}", labels) is not None


def test_an_answer(metrics: Metrics) -> None:
    metrics.answered(REQUEST, RESPONSE, 0.004)
    decided = {"outcome": "ok", "reason": "most-accurate", "tenant": "gold"}
    assert value(metrics, "requests_total", **INT8, **decided) == 1
    assert value(metrics, "decisions_total", model="m", reason="most-accurate") == 1
    assert value(metrics, "request_seconds_sum", **INT8, outcome="ok") == 0.004
    assert value(metrics, "queue_seconds_sum", **INT8) == 0.001
    assert value(metrics, "infer_seconds_sum", **INT8) == 0.002
    assert value(metrics, "overhead_seconds_sum", model="m") == pytest.approx(0.001)
    assert value(metrics, "charged_usd_total", **INT8, tenant="gold") == pytest.approx(2e-6)
    assert value(metrics, "reference_usd_total", model="m") == pytest.approx(6e-6)
    assert value(metrics, "deadlines_total", model="m", outcome="kept", tenant="gold") == 1
    assert value(metrics, "accuracy_credit_total", model="m", timely="true") == 0.9
    assert value(metrics, "predictions_total", **INT8, outcome="within") == 1
    assert value(metrics, "prediction_ratio_sum", **INT8) == pytest.approx(0.8)


def test_one_that_was_late_as_its_caller_let_it_be(metrics: Metrics) -> None:
    relaxed = RESPONSE.decision._replace(relaxed=("latency",))
    metrics.answered(REQUEST, RESPONSE._replace(decision=relaxed), 0.5)
    assert value(metrics, "relaxed_total", model="m", constraint="latency") == 1
    assert value(metrics, "deadlines_total", model="m", outcome="relaxed", tenant="gold") == 1
    assert value(metrics, "deadlines_total", model="m", outcome="kept", tenant="gold") == 0
    assert value(metrics, "accuracy_credit_total", model="m", timely="false") == 0.9
    assert value(metrics, "accuracy_credit_total", model="m", timely="true") == 0
    assert value(metrics, "predictions_total", **INT8, outcome="exceeded") == 1


def test_a_deadline_that_gave_way_needlessly_was_kept(metrics: Metrics) -> None:
    relaxed = RESPONSE.decision._replace(relaxed=("latency",))
    metrics.answered(REQUEST, RESPONSE._replace(decision=relaxed), 0.004)
    assert value(metrics, "deadlines_total", model="m", outcome="kept", tenant="gold") == 1


def test_deadlines_that_were_missed_or_shed(metrics: Metrics) -> None:
    metrics.failed("m", DeadlinePassed("late"), 0.02, ORIGIN, REQUEST)
    metrics.failed("m", Overloaded("full", 1.0), 0.02, ORIGIN, REQUEST)
    easy = REQUEST._replace(constraints=NONE)
    metrics.failed("m", Overloaded("full", 1.0), 0.02, ORIGIN, easy)
    for outcome in ("missed", "shed"):
        assert value(metrics, "deadlines_total", model="m", outcome=outcome, tenant="gold") == 1
    late = {"outcome": "deadline-passed", "reason": "none", "tenant": "gold"}
    assert value(metrics, "requests_total", model="m", variant="none", **late) == 1
    full = {"outcome": "overloaded", "reason": "overloaded", "tenant": "gold"}
    assert value(metrics, "requests_total", model="m", variant="none", **full) == 2


def test_a_deadline_that_an_error_of_ours_broke_and_one_whose_caller_left(metrics: Metrics) -> None:
    metrics.failed("m", EngineFailed("NaN"), 0.001, ORIGIN, REQUEST)
    metrics.failed("m", CallerLeft("gone"), 0.0099, ORIGIN, REQUEST)
    metrics.failed("m", CallerLeft("gone"), 0.001, ORIGIN, REQUEST)
    for outcome in ("broken", "missed"):
        assert value(metrics, "deadlines_total", model="m", outcome=outcome, tenant="gold") == 1


def test_a_deadline_of_the_operators_counts_as_the_callers_own(metrics: Metrics) -> None:
    metrics.govern(Constraints(max_latency_ms=3.0, relax=("latency",)), 95)
    metrics.answered(REQUEST._replace(constraints=NONE), RESPONSE, 0.004)
    metrics.failed("m", Overloaded("full", 1.0), 0.0, ORIGIN, REQUEST._replace(constraints=NONE))
    assert value(metrics, "deadlines_total", model="m", outcome="relaxed", tenant="gold") == 1
    assert value(metrics, "deadlines_total", model="m", outcome="shed", tenant="gold") == 1
    assert value(metrics, "promised_percentile") == 0.95


def test_what_was_shed_without_a_decision(metrics: Metrics) -> None:
    count = metrics.shed("m", Overloaded("full", 1.0), "gold", REQUEST.constraints)
    count()
    count()
    metrics.shed("m", Overloaded("full", 1.0), "gold")()
    assert value(metrics, "shed_total", model="m") == 3
    full = {"outcome": "overloaded", "reason": "overloaded", "tenant": "gold"}
    assert value(metrics, "requests_total", model="m", variant="none", **full) == 3
    assert value(metrics, "deadlines_total", model="m", outcome="shed", tenant="gold") == 2


def test_what_begins_with_a_burst_has_begun_at_0(metrics: Metrics) -> None:
    """Prometheus sees growth alone: a series whose first sample is 500 did not grow."""
    metrics.watch_model("m", ["int8"])
    assert has(metrics, "deadlines_total", model="m", outcome="missed", tenant="open")
    assert has(metrics, "accuracy_credit_total", model="m", timely="true")
    assert has(metrics, "overhead_seconds_count", model="m")
    assert has(metrics, "predictions_total", **INT8, outcome="exceeded")
    assert has(metrics, "batch_failures_total", **INT8)
    for code, reason in (("engine-failed", "none"), ("internal", "none"), ("not-ready",) * 2):
        labels = {"model": "m", "variant": "none", "outcome": code, "reason": reason}
        assert has(metrics, "requests_total", **labels, tenant="open"), code


def test_a_floor_that_was_kept_and_one_that_gave_way(metrics: Metrics) -> None:
    floor = REQUEST._replace(constraints=Constraints(min_accuracy=Floor(0.9)))
    metrics.answered(floor, RESPONSE, 0.004)
    relaxed = RESPONSE.decision._replace(relaxed=("accuracy",), reason="relaxed")
    metrics.answered(floor, RESPONSE._replace(decision=relaxed), 0.004)
    for outcome in ("kept", "relaxed"):
        labels = {"model": "m", "outcome": outcome, "tenant": "gold"}
        assert value(metrics, "accuracy_floors_total", **labels) == 1


@pytest.mark.parametrize("change", [{"cached": True}, {"told": Told(False, 0.0, 10.0)}])
def test_what_was_not_predicted_says_nothing_of_predictions(
    metrics: Metrics, change: dict[str, Any]
) -> None:
    metrics.answered(REQUEST, RESPONSE._replace(**change), 0.004)
    assert value(metrics, "predictions_total", **INT8, outcome="within") == 0
    assert value(metrics, "prediction_ratio_count", **INT8) == 0


def test_a_promise_that_ended_in_a_missed_deadline_was_exceeded(metrics: Metrics) -> None:
    metrics.exceeded("m", "int8")
    assert value(metrics, "predictions_total", **INT8, outcome="exceeded") == 1


def test_a_name_that_the_store_does_not_have_makes_no_label(metrics: Metrics) -> None:
    for number in range(50):
        metrics.failed(f"guess-{number}", UnknownModel("unknown"), 0.0)
    body, _ = metrics.exposition("")
    assert b"guess" not in body
    outcome = {"outcome": "unknown-model", "reason": "none", "tenant": "open"}
    assert value(metrics, "requests_total", model="unknown", variant="none", **outcome) == 50


def test_so_many_tenants_and_keys_have_series_of_their_own(metrics: Metrics) -> None:
    for number in range(600):
        origin = Origin(tenant=f"class-{number}")
        metrics.failed("m", Unsatisfiable("no"), 0.0, origin)
        metrics.key_entered(f"key-{number}")
    never = {"outcome": "unsatisfiable", "reason": "unsatisfiable"}
    labels = {"model": "m", "variant": "none", **never}
    assert value(metrics, "requests_total", **labels, tenant="class-99") == 1
    assert value(metrics, "requests_total", **labels, tenant="others") == 500
    assert value(metrics, "key_requests_total", key="others", outcome="entered") == 100


def test_a_refusal_counts_each_constraint_once(metrics: Metrics) -> None:
    refused = tuple(Refusal(name, "min_accuracy", 0.9, 0.8) for name in ("fp32", "int8"))
    metrics.refused(Decision("m", "unsatisfiable", "accuracy", refused=refused))
    assert value(metrics, "decisions_total", model="m", reason="unsatisfiable") == 1
    assert value(metrics, "constraint_misses_total", model="m", constraint="min_accuracy") == 1


def test_a_batch_and_the_gauges(metrics: Metrics) -> None:
    metrics.batch("m", "int8", 8, 0.002)
    metrics.lane_ran(0.003)
    assert value(metrics, "batch_rows_sum", **INT8) == 8
    assert value(metrics, "batch_seconds_sum", **INT8) == 0.002
    assert value(metrics, "lane_busy_seconds_total") == 0.003
    assert value(metrics, "queued_requests", model="m") == 3
    assert value(metrics, "queue_age_seconds", model="m") == 0.25
    assert has(metrics, "queue_age_seconds", model="idle")
    assert value(metrics, "busy_lanes") == 1
    assert value(metrics, "lanes") == 2
    assert value(metrics, "loaded_bytes") == 5e6


def test_variants_show_their_cards_and_leave_with_the_store(
    metrics: Metrics, tmp_path: Path
) -> None:
    text = (write_variant(tmp_path, "m", "fp32") / CARD_FILE).read_text("utf-8")
    fp32 = VariantCard.model_validate_json(text)
    own = offer(fp32, percentile=99, usd_per_lane_hour=1.0)
    small = fp32.model_copy(
        update={"variant": "small", "accuracy": fp32.accuracy.model_copy(update={"value": 0.9})}
    )
    shown = [
        Shown("m", "small", (small, own, "cd" * 32), True, "half-open"),
        Shown("m", "fp32", (fp32, own, "ab" * 32), True, "closed"),
        Shown("m", "broken", None, False, "open"),
    ]
    metrics.watch_variants(lambda: shown)
    metrics.govern(Constraints(min_accuracy=Floor(0.9, relative=True)), 99)
    whose = {"model": "m", "variant": "fp32"}
    assert value(metrics, "variant_ready", **whose) == 1
    assert value(metrics, "breaker", model="m", variant="broken") == 2
    info = {"digest": "abababababab", "engine": fp32.engine.name, "recipe": "none"}
    assert value(metrics, "variant_info", **whose, **info) == 1
    assert value(metrics, "card_accuracy", **whose, bound="point") == 0.95
    assert value(metrics, "card_accuracy", **whose, bound="low") == fp32.accuracy.low
    p99_s = fp32.latency[0].p99_ms / 1000
    assert value(metrics, "card_latency_seconds", **whose, quantile="0.99") == p99_s
    assert value(metrics, "card_cost_usd_per_million", **whose) > 0
    assert value(metrics, "reference_accuracy", model="m") == 0.95
    assert value(metrics, "accuracy_floor", model="m") == pytest.approx(0.855)
    shown.clear()
    assert not has(metrics, "variant_ready", **whose)
    assert not has(metrics, "variant_info", **whose, **info)


def test_what_happened_to_variants(metrics: Metrics) -> None:
    metrics.loaded(**INT8)
    metrics.loaded(**INT8)
    metrics.evicted(**INT8)
    metrics.swapped(**INT8)
    metrics.load_failed(**INT8)
    metrics.freed(**INT8)
    assert value(metrics, "variant_loads_total", **INT8) == 2
    for name in ("evictions", "swaps", "load_failures", "frees"):
        assert value(metrics, f"variant_{name}_total", **INT8) == 1, name


def test_latency_is_seen_from_a_fifth_of_a_millisecond_to_a_minute(metrics: Metrics) -> None:
    metrics.answered(REQUEST, RESPONSE, 0.0002)
    metrics.answered(REQUEST, RESPONSE, 59.0)
    metrics.answered(REQUEST, RESPONSE, 61.0)
    whose = {**INT8, "outcome": "ok"}
    for bound, count in (("0.0002", 1), ("30.0", 1), ("60.0", 2), ("+Inf", 3)):
        assert value(metrics, "request_seconds_bucket", **whose, le=bound) == count
    assert value(metrics, "request_seconds_count", **whose) == 3


def exemplars(metrics: Metrics) -> list[Any]:
    body, content_type = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = text_string_to_metric_families(body.decode())
    return [s.exemplar for family in families for s in family.samples if s.exemplar]


@pytest.mark.parametrize("sampled", [True, False])
def test_an_exemplar_names_the_trace_where_it_is_recorded(metrics: Metrics, sampled: bool) -> None:
    trace = Trace("ab" * 16, "cd" * 8, sampled)
    request = REQUEST._replace(origin=Origin(trace=trace))
    metrics.answered(request, RESPONSE, 0.004)
    metrics.failed("m", DeadlinePassed("late"), 0.02, request.origin, request)
    found = [(one.labels["trace_id"], one.value) for one in exemplars(metrics)]
    assert found == ([("ab" * 16, 0.004), ("ab" * 16, 0.02)] if sampled else [])
    assert b"abab" not in metrics.exposition("")[0]


def test_what_is_declared_is_what_is_scraped(metrics: Metrics) -> None:
    metrics.answered(REQUEST, RESPONSE, 0.004)
    families = list(metrics.registry.collect())
    series = [(s.name, *sorted(s.labels.items())) for family in families for s in family.samples]
    assert len(series) == len(set(series))
    assert len(families) == len(METRICS) == len(BY_NAME)
    for declared, family in zip(METRICS, families, strict=True):
        assert family.documentation == declared.text
        assert declared.text.endswith("."), declared.name
        assert set(declared.labels) <= set(LABELS), declared.name
        assert {sample.name for sample in family.samples} <= set(declared.series), declared.name
        assert (declared.kind == "counter") == declared.name.endswith("_total")


def test_every_label_is_of_some_metric() -> None:
    used = {label for declared in METRICS for label in declared.labels}
    assert used | {"worker"} == set(LABELS)


def test_a_series_needs_all_of_its_labels(metrics: Metrics) -> None:
    with pytest.raises(AssertionError):
        metrics._families["shed_total"].value()


def test_a_shift_is_counted_beside_the_answer(metrics: Metrics) -> None:
    offers = builders.offer("fp32", 0.95), builders.offer("int8", 0.9)
    choices = Choices(builders.menu(*offers), offers, (0.95, 0.9))
    decision = RESPONSE.decision._replace(reason="under-load", choices=choices)
    metrics.answered(REQUEST._replace(constraints=NONE), RESPONSE._replace(decision=decision), 0.01)
    labels = {"model": "m", "source": "fp32", "target": "int8", "reason": "under-load"}
    assert value(metrics, "shifts_total", **labels) == 1
