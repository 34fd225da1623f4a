"""Spans as they are made of a record, before they are sent."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind

from gateway.messages import Origin, Trace
from gateway.recording.record import Record
from gateway.tracing.environment import Limits
from gateway.tracing.marks import Marks, Run
from gateway.tracing.spans import STATE_LETTERS, Spans
from router.constraints import NONE, Constraints
from router.decision import Decision
from router.errors import CallerLeft, EngineFailed

SCOPE = InstrumentationScope("gearshift", "1")
NO_LIMITS = Limits(None, None, None)


def context(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def test_a_request_that_failed_on_its_second_run() -> None:
    marks = Marks("/v2/models/{model}/infer", 0xAB << 120, 7, 9, "a=1 , b@c=2,", 10.0)
    marks.received_s, marks.parsed_s, marks.routed_s = 10.0, 11.0, 12.0
    first = Run("echo", "fp32", 0, 1, 1, 12.5, [marks], 13.0, failed=1)
    second = Run("echo", "small", 1, 1, 1, 13.5, [marks], 14.0, failed=1)
    marks.runs += [first, second]
    trace = Trace(f"{marks.trace_id:032x}", f"{7:016x}", True)
    origin = Origin("r-1", "gold", "mine", "rest", trace, marks)
    spans = Spans(Resource({"service.name": "x"}), SCOPE, "https", NO_LIMITS)
    ended = Record("echo", 1, NONE, origin, 15.0, 5.0, None, EngineFailed)
    whole, *stages = spans.of(ended, 1_000)
    batch = spans.batch(first, 1_000)
    assert {span.instrumentation_scope for span in (whole, *stages, batch)} == {SCOPE}
    assert (whole.name, whole.kind) == ("POST /v2/models/{model}/infer", SpanKind.SERVER)
    assert (context(whole).trace_id, context(whole).span_id) == (0xAB << 120, 7)
    assert whole.parent is not None
    assert (whole.parent.span_id, whole.parent.is_remote) == (9, True)
    assert (whole.start_time, whole.end_time) == (10**10 + 1000, 15 * 10**9 + 1000)
    said = whole.attributes
    assert said is not None
    assert said["gearshift.request_id"] == "r-1" and said["gearshift.key"] == "mine"
    assert said["http.response.status_code"] == 500 and said["error.type"] == "500"
    assert not whole.status.is_ok and whole.status.description == EngineFailed.code
    names = ["receive", "route", "queue", "infer", "queue", "infer", "respond"]
    assert [each.name for each in stages] == names
    assert [each.status.description for each in stages if not each.status.is_ok] == [
        "run again",
        EngineFailed.code,
    ]
    assert [each.parent for each in stages] == [context(whole)] * len(stages)
    assert len({context(each).span_id for each in stages}) == len(stages)
    assert {context(each).trace_state.to_header() for each in (whole, *stages)} == {"a=1,b@c=2"}
    (link,) = stages[3].links
    assert link.context == context(batch)
    assert [each.context.span_id for each in batch.links] == [7]
    assert batch.status.description == "batch"


def test_what_one_request_says_is_not_said_of_the_next_like_it() -> None:
    spans = Spans(Resource({}), SCOPE, "http", NO_LIMITS)
    for name in ("first", "second"):
        marks = Marks("/v2/models/{model}/infer", 1, 2, 0, "", 10.0)
        origin = Origin(name, "gold", "", "rest", None, marks)
        ended = Record("echo", 1, NONE, origin, 11.0, 1.0, None, EngineFailed)
        whole = spans.of(ended, 0)[0]
        assert whole.attributes is not None
        assert whole.attributes["gearshift.request_id"] == name


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ("a=1", "a=1"),
        ("", ""),
        ("a=1,not one", ""),
        ("a=1,a=2", ""),
        ("a=1,b=\u00e9", ""),
        ("A=1", ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
        ("a=" + "x" * 255 + ",b=" + "y" * 300, "a=" + "x" * 255),
        ("a=" + "x" * 255 + ",b=" + "y" * 252 + ",c=1", "a=" + "x" * 255 + ",b=" + "y" * 252),
    ],
)
def test_a_state_is_passed_on_as_it_should_be_or_not_at_all(
    caplog: pytest.LogCaptureFixture, given: str, passed_on: str
) -> None:
    caplog.set_level(logging.DEBUG)
    marks = Marks("/x", 1, 2, 3, given[: STATE_LETTERS + 1], 10.0)
    origin = Origin("r", marks=marks)
    spans = Spans(Resource({}), SCOPE, "http", NO_LIMITS)
    found = spans.of(Record("", 0, NONE, origin, 11.0, 1.0, None, CallerLeft), 0)
    assert {context(each).trace_state.to_header() for each in found} == {passed_on}
    assert not caplog.text  # which would repeat what the caller sent


def test_all_that_is_known_of_an_answer_is_said() -> None:
    marks = Marks("/v2/models/{model}/infer", 1, 2, 0, "", 10.0)
    marks.received_s, marks.parsed_s, marks.routed_s = 10.0, 10.5, 10.75
    run = Run("echo", "small", 3, 6, 2, 11.0, [marks], 11.5)
    marks.runs.append(run)
    decision = Decision(
        "echo",
        "accepted",
        "cost",
        variant="small",
        reason="cheapest",
        predicted_latency_ms=12.5,
        accuracy=0.9,
        cost_usd_per_million=7.0,
        relaxed=("latency", "cost"),
    )
    constraints = Constraints(max_latency_ms=20.0, relax=("latency", "cost"), priority="high")
    origin = Origin("r-1", "gold", "mine", "rest", None, marks)
    ended = Record("echo", 4, constraints, origin, 12.0, 2.0, decision, None, 8.5, cached=True)
    spans = Spans(Resource({}), SCOPE, "https", NO_LIMITS)
    whole, *stages = spans.of(ended, 0)
    assert dict(whole.attributes or {}) == {
        "gearshift.outcome": "ok",
        "gearshift.tenant": "gold",
        "gearshift.key": "mine",
        "gearshift.model": "echo",
        "gearshift.rows": 4,
        "gearshift.request_id": "r-1",
        "gearshift.variant": "small",
        "gearshift.reason": "cheapest",
        "gearshift.accuracy": 0.9,
        "gearshift.predicted_latency_ms": 12.5,
        "gearshift.cost_usd_per_million": 8.5,
        "gearshift.cached": True,
        "gearshift.relaxed": ("latency", "cost"),
        "gearshift.constraint.max_latency_ms": 20.0,
        "gearshift.constraint.relax": "latency,cost",
        "gearshift.constraint.priority": "high",
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/infer",
        "http.response.status_code": 200,
        "url.scheme": "https",
        "url.path": "/v2/models/echo/infer",
    }
    ran = {
        "gearshift.variant": "small",
        "gearshift.lane": 3,
        "gearshift.batch.rows": 6,
        "gearshift.batch.requests": 2,
    }
    assert [dict(each.attributes or {}) for each in stages] == [{}, {}, {}, ran, {}]
    assert dict(spans.batch(run, 0).attributes or {}) == {**ran, "gearshift.model": "echo"}


def test_a_span_holds_no_more_than_it_may() -> None:
    members = [Marks("/x", 1, number, 0, "", 10.0) for number in (1, 2, 3)]
    run = Run("echo", "small", 3, 6, 2, 11.0, members, 11.5)
    few = Spans(Resource({}), SCOPE, "http", Limits(2, 3, 1)).batch(run, 0)
    assert len(few.attributes or {}) == 2 and len(few.links) == 1
    assert (few.dropped_attributes, few.dropped_links) == (3, 2)
    assert (few.attributes or {})["gearshift.model"] == "ech"
    all_of_it = Spans(Resource({}), SCOPE, "http", Limits(5, None, 3)).batch(run, 0)
    assert (all_of_it.dropped_attributes, all_of_it.dropped_links) == (0, 0)
