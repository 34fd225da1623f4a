"""What is known of a request that has ended, as OpenTelemetry's spans.

Names and attributes are those of its semantic conventions for HTTP and RPC servers; what is ours
is called `gearshift.…`. There is one span of the server's kind for the request and one inside it
for each stage. A batch serves several requests, so its span belongs to none of their traces: it is
linked to each of them, and they to it. Nothing that a request carried is in any attribute.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes import error_attributes as error_names
from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.attributes import url_attributes as url
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from gateway.http.asgi import INFER_ROUTE
from gateway.messages import Origin
from gateway.recording.said_of import asked, status
from gateway.tracing.marks import Marks, Run
from gateway.tracing.phases import Phase, begun_s, phases
from router.constraints import Constraints
from router.decision import Decision
from router.errors import CallerLeft, GearshiftError

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_METHOD = "POST"
# Those that the conventions count as the server's own failures; others are the caller's.
_FAILURES = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)


class Ended(NamedTuple):
    """A traced request that has ended.

    Attributes:
        model: of the store, or empty where its sender made it up.
        ended_s: monotonic.
    """

    marks: Marks
    origin: Origin
    model: str
    rows: int
    constraints: Constraints
    ended_s: float
    decision: Decision | None
    error: type[GearshiftError] | None
    charged: float = 0.0
    cached: bool = False


class Spans:
    """Makes spans.

    Args:
        resource: what this server is.
        scheme: "http" or "https".
    """

    def __init__(self, resource: Resource, scope: InstrumentationScope, scheme: str) -> None:
        self._resource = resource
        self._scope = scope
        self._scheme = scheme

    def of(self, ended: Ended, unix_ns: int) -> list[ReadableSpan]:
        """The request's spans, its own first.

        Args:
            unix_ns: what to add to monotonic time.
        """
        marks = ended.marks
        state = TraceState.from_header([marks.state]) if marks.state else None
        context = _context(marks.trace_id, marks.span_id, state)
        parent = None
        if marks.parent_id:
            parent = SpanContext(marks.trace_id, marks.parent_id, True, _SAMPLED, state)
        attributes, failed = self._request(ended)
        name = marks.route if ended.origin.protocol == "grpc" else f"{_METHOD} {marks.route}"
        kind = SpanKind.SERVER
        whole = Phase(name, begun_s(marks), ended.ended_s)
        spans = [self._span(whole, context, parent, attributes, unix_ns, kind, failed=failed)]
        for phase in phases(marks, ended.ended_s):
            own = _context(marks.trace_id, _new_id(64), state)
            links = () if phase.run is None else (Link(_of_run(phase.run)),)
            more = {} if phase.run is None else _batch(phase.run)
            broken = _broke(phase, ended)
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
        return ReadableSpan(
            phase.name,
            context,
            parent,
            self._resource,
            attributes,
            (),
            links,
            kind,
            None,
            Status(StatusCode.ERROR, failed) if failed else Status(),
            round(phase.start_s * 1e9) + unix_ns,
            round(phase.end_s * 1e9) + unix_ns,
            self._scope,
        )

    def _request(self, ended: Ended) -> tuple[dict[str, Any], str]:
        """Attributes of the request's own span, and what it failed with, if that is our failure."""
        origin, error = ended.origin, ended.error
        code = "ok" if error is None else error.code
        ending = status(origin.protocol, error)
        said: dict[str, Any] = {
            "gearshift.request_id": origin.id,
            "gearshift.outcome": code,
            "gearshift.tenant": origin.tenant,
        }
        if origin.protocol == "grpc":
            failed = ending in _FAILURES
            said |= {
                "rpc.system.name": "grpc",
                "rpc.method": ended.marks.route,
                "rpc.response.status_code": ending,
            }
        else:
            failed = isinstance(ending, int) and ending >= 500
            said |= {
                http.HTTP_REQUEST_METHOD: _METHOD,
                http.HTTP_ROUTE: ended.marks.route,
                url.URL_SCHEME: self._scheme,
            }
            if ended.model and ended.marks.route == INFER_ROUTE:
                said[url.URL_PATH] = INFER_ROUTE.replace("{model}", ended.model)
            if error is not CallerLeft:  # who was told nothing
                said[http.HTTP_RESPONSE_STATUS_CODE] = ending
        if failed:
            said[error_names.ERROR_TYPE] = str(ending)
        if origin.key:
            said["gearshift.key"] = origin.key
        if ended.model:
            said["gearshift.model"] = ended.model
        if ended.rows:
            said["gearshift.rows"] = ended.rows
        for key, value in asked(ended.constraints).items():
            said[f"gearshift.constraint.{key}"] = value
        decision = ended.decision
        if decision is not None:
            said |= {
                "gearshift.variant": decision.variant,
                "gearshift.reason": decision.reason,
                "gearshift.accuracy": decision.accuracy,
                "gearshift.predicted_latency_ms": decision.predicted_latency_ms,
                "gearshift.cost_usd_per_million": ended.charged,
                "gearshift.cached": ended.cached,
            }
            if decision.relaxed:
                said["gearshift.relaxed"] = decision.relaxed
        return said, code if failed else ""


def _batch(run: Run) -> dict[str, Any]:
    return {
        "gearshift.variant": run.variant,
        "gearshift.lane": run.lane,
        "gearshift.batch.rows": run.rows,
        "gearshift.batch.requests": run.requests,
    }


def _broke(phase: Phase, ended: Ended) -> str:
    """What a stage failed with: a run that was not the last, or that no answer came of."""
    if phase.run is None or not phase.run.failed:
        return ""
    if phase.run is not ended.marks.runs[-1]:
        return "run again"
    return "" if ended.error is None else ended.error.code


def _of_run(run: Run) -> SpanContext:
    if not run.span_id:
        run.trace_id, run.span_id = _new_id(128), _new_id(64)
    return _context(run.trace_id, run.span_id)


def _context(trace_id: int, span_id: int, state: TraceState | None = None) -> SpanContext:
    return SpanContext(trace_id, span_id, False, _SAMPLED, state)


def _new_id(bits: int) -> int:
    return random.getrandbits(bits) or 1
