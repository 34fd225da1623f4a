"""Spans as bytes: what OpenTelemetry's own messages read in them, and how a collector gets them."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource

from gateway.messages import Origin, Trace
from gateway.recording.record import Record
from gateway.tracing import environment, protobuf
from gateway.tracing.marks import Marks, Run
from gateway.tracing.sender import Sender
from gateway.tracing.spans import Spans
from router.constraints import NONE
from router.errors import CallerLeft, EngineFailed

_TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
_PLAIN = _TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


def read(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [read(each) for each in value.array_value.values]
    return getattr(value, kind)


@given(_TEXT, _PLAIN | st.lists(_TEXT, max_size=4))
def test_an_attribute_reads_back(key: str, value: object) -> None:
    (found,) = Span.FromString(protobuf.attribute(9, key, value)).attributes
    assert (found.key, read(found.value)) == (key, value)
    assert type(read(found.value)) is type(value)


@given(st.integers(-(2**63), 2**64 - 1))
def test_a_whole_number_reads_back(number: int) -> None:
    read_back = AnyValue.FromString(b"\x18" + protobuf.varint(number)).int_value
    assert read_back % 2**64 == number % 2**64


def test_a_request_that_failed_on_its_second_run() -> None:
    marks = Marks("/v2/models/{model}/infer", 0xAB << 120, 7, 9, "a=1 , b@c=2,", 10.0)
    marks.received_s, marks.parsed_s, marks.routed_s = 10.0, 11.0, 12.0
    first = Run("echo", "fp32", 0, 1, 1, 12.5, [marks], 13.0, failed=1)
    second = Run("echo", "small", 1, 1, 1, 13.5, [marks], 14.0, failed=1)
    marks.runs += [first, second]
    trace = Trace(f"{marks.trace_id:032x}", f"{7:016x}", True)
    origin = Origin("r\udcff", "gold", "mine", "rest", trace, marks)
    spans = Spans(Resource({"service.name": "x"}), "gearshift", "1", "https")
    ended = Record("echo", 1, NONE, origin, 15.0, 5.0, None, EngineFailed)
    raw = spans.message([*spans.of(ended, 1_000), spans.batch(first, 1_000)])
    (resource,) = ExportTraceServiceRequest.FromString(raw).resource_spans
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("gearshift", "1")
    whole, *stages, batch = scope.spans
    assert whole.name == "POST /v2/models/{model}/infer"
    assert (whole.trace_id, whole.span_id) == (b"\xab" + bytes(15), bytes(7) + b"\x07")
    assert (whole.parent_span_id, whole.flags) == (bytes(7) + b"\x09", 0x300)
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (
        10**10 + 1000,
        15 * 10**9 + 1000,
    )
    said = {each.key: read(each.value) for each in whole.attributes}
    assert said["gearshift.request_id"] == "r?" and said["gearshift.key"] == "mine"
    assert said["http.response.status_code"] == 500 and said["error.type"] == "500"
    assert (whole.status.code, whole.status.message) == (2, EngineFailed.code)
    names = ["receive", "route", "queue", "infer", "queue", "infer", "respond"]
    assert [each.name for each in stages] == names
    assert [each.status.message for each in stages if each.status.code] == [
        "run again",
        EngineFailed.code,
    ]
    assert {each.parent_span_id for each in stages} == {whole.span_id}
    assert len({each.span_id for each in stages}) == len(stages)
    assert {each.trace_state for each in (whole, *stages)} == {"a=1,b@c=2"}
    (link,) = stages[3].links
    assert (link.trace_id, link.span_id) == (batch.trace_id, batch.span_id)
    assert [each.span_id for each in batch.links] == [whole.span_id]
    assert batch.status.message == "batch"


@pytest.mark.parametrize(
    ("given_", "passed_on"),
    [
        ("a=1", "a=1"),
        ("", ""),
        ("a=1,not one", ""),
        ("a=1,b=\u00e9", ""),
        ("A=1", ""),
        ("a=" + "x" * 255 + ",b=" + "y" * 300, "a=" + "x" * 255),
    ],
)
def test_a_state_is_passed_on_as_it_should_be_or_not_at_all(given_: str, passed_on: str) -> None:
    marks = Marks("/x", 1, 2, 3, given_[:513], 10.0)
    origin = Origin("r", marks=marks)
    spans = Spans(Resource({}), "gearshift", "1", "http")
    raw = spans.of(Record("", 0, NONE, origin, 11.0, 1.0, None, CallerLeft), 0)
    message = ExportTraceServiceRequest.FromString(spans.message(raw))
    found = {each.trace_state for each in message.resource_spans[0].scope_spans[0].spans}
    assert found == {passed_on}


@contextmanager
def collector(*statuses: int, **headers: str) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """One that answers so, in turn, and then 200; its URL, and what came, with its coding."""
    left, came = list(statuses), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            came.append((self.headers.get("content-encoding", ""), raw))
            self.send_response(left.pop(0) if left else 200)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sender(url: str, **more: object) -> Sender:
    to = environment.Destination(url, {}, 10.0, "none", "", "", "")
    return Sender(to._replace(**more))


def test_what_is_refused_for_now_is_sent_again_and_what_is_refused_is_lost() -> None:
    with collector(503, 429) as (url, came):
        assert sender(url).send(b"spans")
        assert [raw for _, raw in came] == [b"spans"] * 3
    for status in (400, 413, 500, 302):
        with collector(status) as (url, came):
            assert not sender(url).send(b"spans")
            assert len(came) == 1


def test_one_that_says_when_to_come_again_is_not_asked_before() -> None:
    with collector(503, Retry_After="60") as (url, came):
        assert not sender(url).send(b"spans")  # its time would be over by then
        assert len(came) == 1


def test_who_waits_to_send_again_stops_at_once() -> None:
    with collector(*[503] * 99, Retry_After="5") as (url, came):
        sending = sender(url)
        thread = threading.Thread(target=sending.send, args=(b"spans",))
        thread.start()
        while not came:
            time.sleep(0.001)
        sending.stop()
        thread.join(4)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("coding", "opened"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)]
)
def test_what_is_compressed_says_so(coding: str, opened: object) -> None:
    with collector() as (url, came):
        assert sender(url, compression=coding).send(b"spans" * 100)
    ((said, raw),) = came
    assert callable(opened)
    assert (said, opened(raw)) == (coding, b"spans" * 100)


def test_a_collector_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    with collector() as (url, _):
        gone = url.replace("http://", "http://me:swordfish@") + "?key=swordfish"
    assert not sender(gone, timeout_s=0.2).send(b"spans")
    assert "swordfish" not in caplog.text and "/v1/traces" in caplog.text


def test_where_to_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.destination().url == "http://localhost:4318/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1/x/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20b=c, x=1,")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP")
    found = environment.destination()
    assert (found.url, found.compression, found.timeout_s) == ("http://a:1/x/v1/traces", "gzip", 10)
    assert found.headers == {"authorization": "Bearer b=c", "x": "1"}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:2/as/it/is")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "y=2")
    found = environment.destination()
    assert (found.url, found.headers) == ("http://b:2/as/it/is", {"y": "2"})
