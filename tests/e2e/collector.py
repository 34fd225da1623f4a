"""A collector of traces, and servers that send to it.

It is a real receiver of OpenTelemetry's protocol, over HTTP and protobuf.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.harness import Server, until

PATH = "/v1/traces"
RECORDED = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01")


class Span(NamedTuple):
    """A span as it came, its ids as hexadecimal digits, and what sent it."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: frozenset[tuple[str, str]]
    failed: bool
    resource: dict[str, Any]


class Collector:
    """Receives spans, as a context manager.

    Attributes:
        raw: every body that came, for who looks for what must not be in there.
        headers: those of the last request.

    Args:
        status: what it answers.
    """

    def __init__(self, status: int = 200) -> None:
        self.raw: list[bytes] = []
        self.headers: dict[str, str] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == PATH
                collector.headers = dict(self.headers.items())
                collector.raw.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[Span]:
        """All that came so far, in their order."""
        return [span for raw in list(self.raw) for span in _spans(raw)]

    def request(self, name: str) -> Span:
        """The span of the request called `name`, once it has come."""
        return self.waited_for(lambda span: span.attributes.get("gearshift.request_id") == name)

    def waited_for(self, wanted: Callable[[Span], bool]) -> Span:
        """The first span that is wanted, once it has come."""
        found = until(lambda: [span for span in self.spans if wanted(span)], "a span comes")
        return found[0]

    def inside(self, outer: Span) -> list[Span]:
        """The spans whose parent is `outer`, in their order."""
        inner = [span for span in self.spans if span.parent_id == outer.span_id]
        return sorted(inner, key=lambda span: span.start_ns)


def _spans(raw: bytes) -> list[Span]:
    found = []
    for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
        about = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            found += [
                Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.trace_state,
                    span.kind,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _values(span.attributes),
                    frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    about,
                )
                for span in scope.spans
            ]
    return found


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


def traced(models: Path, collector: Collector, delay_ms: int = 20, **settings: Any) -> Server:
    """A server that sends its traces to `collector`, not started yet."""
    return server_in(
        models,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": str(delay_ms),
            "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-7,service.version=canary-3",
        },
        **settings,
    )


def server_in(models: Path, environment: Mapping[str, str], **settings: Any) -> Server:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Server(models, tracing=True, **settings)


def named_by(traceparent: str) -> tuple[str, str]:
    """The trace and the span that an answer names."""
    found = RECORDED.fullmatch(traceparent)
    assert found, traceparent
    return found[1], found[2]
