"""What is known of a request that has ended, as OpenTelemetry's spans.

Names and attributes are those of its semantic conventions for HTTP and RPC servers; what is ours
is called `gearshift.…`. There is one span of the server's kind for the request and one inside it
for each stage. A batch serves several requests, so its span belongs to none of their traces: it is
linked to each of them, and they to it. Nothing that a request carried is in any attribute.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes import error_attributes as error_names
from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.attributes import url_attributes as url
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from gateway.http.asgi import INFER_ROUTE
from gateway.recording.record import Record
from gateway.recording.said_of import asked, status
from gateway.tracing.environment import Limits
from gateway.tracing.marks import Marks, Run
from gateway.tracing.phases import Phase, begun_s, phases
from router.constraints import Constraints
from router.errors import CallerLeft, GearshiftError

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_METHOD = "POST"
# W3C Trace Context, "tracestate": no more of it need be passed on.
STATE_LETTERS = 512
# Those that the conventions count as the server's own failures; others are the caller's.
_FAILURES = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)

# Of a `tracestate` that is none it would repeat what the caller sent. By a filter: whoever sets up
# logging anew enables what was disabled.
logging.getLogger(TraceState.__module__).addFilter(lambda _: False)


class Spans:
    """Makes spans.

    Args:
        resource: what this server is.
        scheme: "http" or "https".
        limits: of a span's size.
    """

    def __init__(
        self, resource: Resource, scope: InstrumentationScope, scheme: str, limits: Limits
    ) -> None:
        self._limits = limits
        self._resource = resource
        self._scope = scope
        self._scheme = scheme
        self._same = lru_cache(maxsize=1024)(self._repeated)

    def of(self, ended: Record, unix_ns: int) -> list[ReadableSpan]:
        """The request's spans, its own first.

        Args:
            ended: with marks.
            unix_ns: what to add to monotonic time.
        """
        origin, marks = ended.origin, ended.origin.marks
        assert marks is not None
        state = _state(marks.state)
        context = _context(marks.trace_id, marks.span_id, state)
        parent = None
        if marks.parent_id:
            parent = SpanContext(marks.trace_id, marks.parent_id, True, _SAMPLED, state)
        name, same, failed = self._same(
            marks.route,
            origin.protocol,
            origin.tenant,
            origin.key,
            ended.model,
            ended.rows,
            ended.constraints,
            "ok" if ended.error is None else ended.error.code,
            status(origin.protocol, ended.error),
        )
        attributes = {**same, "gearshift.request_id": origin.id, **_decided(ended)}
        whole = Phase(name, begun_s(marks), ended.ended_s)
        kind = SpanKind.SERVER
        spans = [self._span(whole, context, parent, attributes, unix_ns, kind, failed=failed)]
        for phase in phases(marks, ended.ended_s):
            own = _context(marks.trace_id, _new_id(64), state)
            links = () if phase.run is None else (Link(_of_run(phase.run)),)
            more = {} if phase.run is None else _batch(phase.run)
            broken = _broke(phase, ended.error, marks)
            spans.append(self._span(phase, own, context, more, unix_ns, links=links, failed=broken))
        return spans

    def batch(self, run: Run, unix_ns: int) -> ReadableSpan:
        """The span of a batch that has finished."""
        links = tuple(Link(_context(each.trace_id, each.span_id)) for each in run.members)
        attributes = {**_batch(run), "gearshift.model": run.model}
        phase = Phase("batch", run.started_s, run.finished_s)
        failed = "batch" if run.failed == run.requests else ""
        return self._span(
            phase, _of_run(run), None, attributes, unix_ns, links=links, failed=failed
        )

    def _span(
        self,
        phase: Phase,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Mapping[str, Any],
        unix_ns: int,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        links: tuple[Link, ...] = (),
        failed: str = "",
    ) -> ReadableSpan:
        most = self._limits.links
        return ReadableSpan(
            phase.name,
            context,
            parent,
            self._resource,
            self._as_many(attributes),
            (),
            links if most is None or len(links) <= most else BoundedList.from_seq(most, links),
            kind,
            None,
            _status(failed),
            round(phase.start_s * 1e9) + unix_ns,
            round(phase.end_s * 1e9) + unix_ns,
            self._scope,
        )

    def _as_many(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        most, letters = self._limits.attributes, self._limits.letters
        if letters is None and (most is None or len(attributes) <= most):
            return attributes
        return BoundedAttributes(most, attributes, max_value_len=letters)

    def _repeated(
        self,
        route: str,
        protocol: str,
        tenant: str,
        key: str,
        model: str,
        rows: int,
        constraints: Constraints,
        code: str,
        ending: int | str,
    ) -> tuple[str, Mapping[str, Any], str]:
        """What repeats of a request's own span: its name, attributes, and what it failed with, if
        that is our failure."""
        said: dict[str, Any] = {"gearshift.outcome": code, "gearshift.tenant": tenant}
        if protocol == "grpc":
            name, failed = route, ending in _FAILURES
            said |= {
                "rpc.system.name": "grpc",
                "rpc.method": route,
                "rpc.response.status_code": ending,
            }
        else:
            name, failed = f"{_METHOD} {route}", isinstance(ending, int) and ending >= 500
            said |= {
                http.HTTP_REQUEST_METHOD: _METHOD,
                http.HTTP_ROUTE: route,
                url.URL_SCHEME: self._scheme,
            }
            if model and route == INFER_ROUTE:
                said[url.URL_PATH] = INFER_ROUTE.replace("{model}", model)
            if code != CallerLeft.code:  # who was told nothing
                said[http.HTTP_RESPONSE_STATUS_CODE] = ending
        if failed:
            said[error_names.ERROR_TYPE] = str(ending)
        if key:
            said["gearshift.key"] = key
        if model:
            said["gearshift.model"] = model
        if rows:
            said["gearshift.rows"] = rows
        for stated, value in asked(constraints).items():
            said[f"gearshift.constraint.{stated}"] = value
        return name, said, code if failed else ""


def _decided(ended: Record) -> dict[str, Any]:
    decision = ended.decision
    if decision is None:
        return {}
    said: dict[str, Any] = {
        "gearshift.variant": decision.variant,
        "gearshift.reason": decision.reason,
        "gearshift.accuracy": decision.accuracy,
        "gearshift.predicted_latency_ms": decision.predicted_latency_ms,
        "gearshift.cost_usd_per_million": ended.charged,
        "gearshift.cached": ended.cached,
    }
    if decision.relaxed:
        said["gearshift.relaxed"] = decision.relaxed
    return said


def _batch(run: Run) -> dict[str, Any]:
    return {
        "gearshift.variant": run.variant,
        "gearshift.lane": run.lane,
        "gearshift.batch.rows": run.rows,
        "gearshift.batch.requests": run.requests,
    }


def _broke(phase: Phase, error: type[GearshiftError] | None, marks: Marks) -> str:
    """What a stage failed with: a run that was not the last, or that no answer came of."""
    if phase.run is None or not phase.run.failed:
        return ""
    if phase.run is not marks.runs[-1]:
        return "run again"
    return "" if error is None else error.code


@lru_cache(maxsize=64)
def _status(failed: str) -> Status:
    return Status(StatusCode.ERROR, failed) if failed else Status()


@lru_cache(maxsize=1024)
def _state(header: str) -> TraceState | None:
    """The W3C's `tracestate`; none of it where it is not as it should be."""
    if len(header) > STATE_LETTERS:
        header = header.rpartition(",")[0]  # its last member was cut off
    return TraceState.from_header([header]) if header else None


def _of_run(run: Run) -> SpanContext:
    if not run.span_id:
        run.trace_id, run.span_id = _new_id(128), _new_id(64)
    return _context(run.trace_id, run.span_id)


def _context(trace_id: int, span_id: int, state: TraceState | None = None) -> SpanContext:
    return SpanContext(trace_id, span_id, False, _SAMPLED, state)


def _new_id(bits: int) -> int:
    return random.getrandbits(bits) or 1
