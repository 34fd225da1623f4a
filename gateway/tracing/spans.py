"""What is known of a request that has ended, as OpenTelemetry's spans, encoded for a collector.

Names and attributes are those of its semantic conventions for HTTP and RPC servers; what is ours
is called `gearshift.…`. There is one span of the server's kind for the request and one inside it
for each stage. A batch serves several requests, so its span belongs to none of their traces: it is
linked to each of them, and they to it. Nothing that a request carried is in any attribute.

Each is a `Span` of opentelemetry/proto/trace/v1/trace.proto, as bytes that stand in `ScopeSpans`.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv.attributes import error_attributes as error_names
from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.attributes import url_attributes as url

from gateway.http.asgi import INFER_ROUTE
from gateway.recording.record import Record
from gateway.recording.said_of import asked, status
from gateway.tracing.marks import Marks, Run
from gateway.tracing.phases import Phase, begun_s, phases
from gateway.tracing.protobuf import attribute, double, double_prefix, number, piece, text, varint
from router.constraints import Constraints
from router.errors import CallerLeft, GearshiftError

# Fields of `Span`, of its `Link` and of its `Status`.
_TRACE, _ID, _STATE, _PARENT, _NAME, _KIND = 1, 2, 3, 4, 5, 6
_ATTRIBUTES, _LINKS, _STATUS = 9, 13, 15
_MESSAGE, _CODE, _FAILED = 2, 3, 2
_INTERNAL, _SERVER = 1, 2
# Beginning and end, as nanoseconds, in fields 7 and 8.
_times = struct.Struct("<BQBQ").pack
_BEGIN, _END = 7 << 3 | 1, 8 << 3 | 1
# Fields 16 and 6, `flags`: that it is known whether the parent is remote, and that it is.
_KNOWN, _REMOTE = 0x100, 0x300
_METHOD = "POST"
# W3C Trace Context, "tracestate": no more of it need be passed on; a member, its key and value.
STATE_LETTERS = 512
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
# Those that the conventions count as the server's own failures; others are the caller's.
_FAILURES = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
_REQUEST_ID = "gearshift.request_id"
_PREDICTED = double_prefix(_ATTRIBUTES, "gearshift.predicted_latency_ms")
_CHARGED = double_prefix(_ATTRIBUTES, "gearshift.cost_usd_per_million")


class Spans:
    """Makes spans.

    Args:
        resource: what this server is.
        scheme: "http" or "https".
    """

    def __init__(self, resource: Resource, scope: str, version: str, scheme: str) -> None:
        about = b"".join(attribute(1, key, value) for key, value in resource.attributes.items())
        self._resource = piece(1, about)
        self._schema = text(3, resource.schema_url) if resource.schema_url else b""
        self._scope = piece(1, text(1, scope) + text(2, version))
        self._scheme = scheme
        self._same = lru_cache(maxsize=1024)(self._repeated)

    def message(self, spans: list[bytes]) -> bytes:
        """An `ExportTraceServiceRequest` that holds them."""
        scoped = piece(2, b"".join((self._scope, *spans)))
        return piece(1, b"".join((self._resource, scoped, self._schema)))

    def of(self, ended: Record, unix_ns: int) -> list[bytes]:
        """The request's spans, its own first.

        Args:
            ended: with marks.
            unix_ns: what to add to monotonic time.
        """
        origin, marks = ended.origin, ended.origin.marks
        assert marks is not None
        own_id = marks.span_id.to_bytes(8, "big")
        shared = b"\x0a\x10%b%b" % (marks.trace_id.to_bytes(16, "big"), _state(marks.state))
        same, failed = self._same(
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
        own = [shared, piece(_ID, own_id), same, attribute(_ATTRIBUTES, _REQUEST_ID, origin.id)]
        if marks.parent_id:
            own.append(piece(_PARENT, marks.parent_id.to_bytes(8, "big")))
        own.append(_flags(16, _REMOTE if marks.parent_id else _KNOWN))
        decision = ended.decision
        if decision is not None:
            own += (
                _decided(
                    decision.variant,
                    decision.reason,
                    decision.accuracy,
                    decision.relaxed,
                    ended.cached,
                ),
                _PREDICTED,
                double(decision.predicted_latency_ms),
                _CHARGED,
                double(ended.charged),
            )
        own += (_status(failed), _when(begun_s(marks), ended.ended_s, unix_ns))
        spans = [piece(2, b"".join(own))]
        inner = shared + piece(_PARENT, own_id)
        for phase in phases(marks, ended.ended_s):
            run, more = phase.run, b""
            if run is not None:
                more = _linked(run)
            stage = b"%b\x12\x08%b%b%b%b%b" % (
                inner,
                _new_id(8),
                _named(phase.name),
                more,
                _status(_broke(phase, ended.error, marks)),
                _when(phase.start_s, phase.end_s, unix_ns),
            )
            spans.append(b"\x12%b%b" % (varint(len(stage)), stage))
        return spans

    def batch(self, run: Run, unix_ns: int) -> bytes:
        """The span of a batch that has finished."""
        trace_id, span_id = _of_run(run)
        links = [
            _link(each.trace_id.to_bytes(16, "big"), each.span_id.to_bytes(8, "big"))
            for each in run.members
        ]
        failed = "batch" if run.failed == run.requests else ""
        return piece(
            2,
            b"".join(
                (
                    piece(_TRACE, trace_id),
                    piece(_ID, span_id),
                    _named("batch"),
                    _batch(run.variant, run.lane, run.rows, run.requests),
                    attribute(_ATTRIBUTES, "gearshift.model", run.model),
                    *links,
                    _status(failed),
                    _when(run.started_s, run.finished_s, unix_ns),
                )
            ),
        )

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
    ) -> tuple[bytes, str]:
        """What repeats of a request's own span, and what it failed with, if that is our failure."""
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
        head = text(_NAME, name) + number(_KIND, _SERVER)
        return head + _attributes(said), code if failed else ""


def _attributes(said: Mapping[str, Any]) -> bytes:
    return b"".join(attribute(_ATTRIBUTES, key, value) for key, value in said.items())


@lru_cache(maxsize=1024)
def _decided(
    variant: str, reason: str, accuracy: float, relaxed: tuple[str, ...], cached: bool
) -> bytes:
    said: dict[str, Any] = {
        "gearshift.variant": variant,
        "gearshift.reason": reason,
        "gearshift.accuracy": accuracy,
        "gearshift.cached": cached,
    }
    if relaxed:
        said["gearshift.relaxed"] = relaxed
    return _attributes(said)


@lru_cache(maxsize=1024)
def _batch(variant: str, lane: int, rows: int, requests: int) -> bytes:
    return _attributes(
        {
            "gearshift.variant": variant,
            "gearshift.lane": lane,
            "gearshift.batch.rows": rows,
            "gearshift.batch.requests": requests,
        }
    )


def _linked(run: Run) -> bytes:
    """What a stage says of the batch that it was in; once for all who were."""
    if not run.linked:
        said = _batch(run.variant, run.lane, run.rows, run.requests)
        run.linked = said + _link(*_of_run(run))
    return run.linked


def _broke(phase: Phase, error: type[GearshiftError] | None, marks: Marks) -> str:
    """What a stage failed with: a run that was not the last, or that no answer came of."""
    if phase.run is None or not phase.run.failed:
        return ""
    if phase.run is not marks.runs[-1]:
        return "run again"
    return "" if error is None else error.code


@lru_cache(maxsize=64)
def _named(name: str) -> bytes:
    return text(_NAME, name) + number(_KIND, _INTERNAL) + _flags(16, _KNOWN)


@lru_cache(maxsize=64)
def _status(failed: str) -> bytes:
    return piece(_STATUS, text(_MESSAGE, failed) + number(_CODE, _FAILED)) if failed else b""


@lru_cache(maxsize=1024)
def _state(header: str) -> bytes:
    """The W3C's `tracestate`; none of it where it is not as it should be."""
    members = [member.strip(" \t") for member in header.split(",")]
    if len(header) > STATE_LETTERS:
        del members[-1]  # which was cut off
    members = [member for member in members if member]
    if not members or not all(map(_MEMBER.fullmatch, members)):
        return b""
    return text(_STATE, ",".join(members))


def _flags(field: int, flags: int) -> bytes:
    return varint(field << 3 | 5) + flags.to_bytes(4, "little")


def _when(start_s: float, end_s: float, unix_ns: int) -> bytes:
    return _times(_BEGIN, round(start_s * 1e9) + unix_ns, _END, round(end_s * 1e9) + unix_ns)


def _link(trace_id: bytes, span_id: bytes) -> bytes:
    return piece(_LINKS, piece(_TRACE, trace_id) + piece(_ID, span_id) + _flags(6, _KNOWN))


def _of_run(run: Run) -> tuple[bytes, bytes]:
    if not run.span_id:
        run.trace_id, run.span_id = _new_id(16), _new_id(8)
    return run.trace_id, run.span_id


def _new_id(size: int) -> bytes:
    return (random.getrandbits(size * 8) or 1).to_bytes(size, "big")
