"""Metrics: what is counted, and under which labels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.messages import InferRequest, InferResponse, Told
from gateway.metrics import Metrics
from router.breaker import Breaker
from router.constraints import Constraints
from router.decision import Decision, Refusal
from router.errors import DeadlinePassed, UnknownModel

REQUEST = InferRequest("m", {}, 1, Constraints(max_latency_ms=10.0), 0.0)
RESPONSE = InferResponse(
    outputs={},
    decision=Decision("m", "accepted", "accuracy", variant="int8", reason="most-accurate"),
    cost_usd_per_million=2.0,
    queue_ms=1.0,
    infer_ms=3.0,
    deadline_s=1.0,
    told=Told(False, 4.0, 5.0),
)


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.watch(
        queued=lambda: 3,
        busy_lanes=lambda: 1,
        lost_lanes=lambda: 0,
        loaded_bytes=lambda: 5e6,
        lanes=2,
    )
    made.watch_variants(
        "m", ["fp32", "int8"], lambda variant: variant == "int8", lambda _: Breaker()
    )
    return made


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"gearshift_{name}", labels) or 0.0


def test_an_answer(metrics: Metrics) -> None:
    metrics.answered(REQUEST, RESPONSE, 0.004)
    whose = {"model": "m", "variant": "int8"}
    assert value(metrics, "requests_total", **whose, outcome="ok") == 1
    assert value(metrics, "request_seconds_sum", **whose, outcome="ok") == 0.004
    assert value(metrics, "queue_seconds_sum", **whose) == 0.001
    assert value(metrics, "charged_usd_total", **whose) == pytest.approx(2e-6)
    assert value(metrics, "decisions_total", model="m", reason="most-accurate") == 1
    assert value(metrics, "deadlines_total", model="m", outcome="kept") == 1


def test_a_deadline_that_gave_way_was_not_kept(metrics: Metrics) -> None:
    relaxed = replace(RESPONSE.decision, relaxed=("latency",))
    metrics.answered(REQUEST, replace(RESPONSE, decision=relaxed), 0.5)
    assert value(metrics, "relaxed_total", model="m", constraint="latency") == 1
    assert value(metrics, "deadlines_total", model="m", outcome="relaxed") == 1
    assert value(metrics, "deadlines_total", model="m", outcome="kept") == 0


def test_a_missed_deadline(metrics: Metrics) -> None:
    metrics.failed("m", DeadlinePassed("late"), 0.02)
    assert (
        value(metrics, "requests_total", model="m", variant="none", outcome="deadline-passed") == 1
    )
    assert value(metrics, "deadlines_total", model="m", outcome="missed") == 1


def test_a_name_that_the_store_does_not_have_makes_no_label(metrics: Metrics) -> None:
    for number in range(50):
        metrics.failed(f"guess-{number}", UnknownModel("unknown"), 0.0)
    body, _ = metrics.exposition("")
    assert b"guess" not in body
    outcome = {"model": "unknown", "variant": "none", "outcome": "unknown-model"}
    assert value(metrics, "requests_total", **outcome) == 50


def test_a_refusal_counts_each_constraint_once(metrics: Metrics) -> None:
    refused = tuple(Refusal(name, "min_accuracy", 0.9, 0.8) for name in ("fp32", "int8"))
    metrics.refused(Decision("m", "unsatisfiable", "accuracy", refused=refused))
    assert value(metrics, "decisions_total", model="m", reason="unsatisfiable") == 1
    assert value(metrics, "constraint_misses_total", model="m", constraint="min_accuracy") == 1


def test_a_batch_and_the_gauges(metrics: Metrics) -> None:
    metrics.batch("m", "int8", 8, 0.002)
    assert value(metrics, "batch_rows_sum", model="m", variant="int8") == 8
    assert value(metrics, "batch_seconds_sum", model="m", variant="int8") == 0.002
    assert value(metrics, "queued_requests") == 3
    assert value(metrics, "busy_lanes") == 1
    assert value(metrics, "lanes") == 2
    assert value(metrics, "loaded_bytes") == 5e6
    assert value(metrics, "variant_ready", model="m", variant="int8") == 1
    assert value(metrics, "variant_ready", model="m", variant="fp32") == 0


def test_what_was_loaded_and_freed(metrics: Metrics) -> None:
    whose = {"model": "m", "variant": "int8"}
    metrics.loaded(**whose)
    metrics.loaded(**whose)
    metrics.evicted(**whose)
    assert value(metrics, "variant_loads_total", **whose) == 2
    assert value(metrics, "variant_evictions_total", **whose) == 1


def test_latency_is_seen_from_half_a_millisecond_to_a_minute(metrics: Metrics) -> None:
    metrics.answered(REQUEST, RESPONSE, 0.0004)
    whose = {"model": "m", "variant": "int8", "outcome": "ok"}
    assert value(metrics, "request_seconds_bucket", **whose, le="0.0005") == 1
    assert value(metrics, "request_seconds_bucket", **whose, le="60.0") == 1


def test_openmetrics_where_asked_for(metrics: Metrics) -> None:
    body, content_type = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_every_metric_says_what_it_is(metrics: Metrics) -> None:
    for family in metrics.registry.collect():
        assert family.name.startswith("gearshift_")
        assert family.documentation.endswith("."), family.name
