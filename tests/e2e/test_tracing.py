"""Traces as a real collector gets them: through REST and gRPC, however requests end."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.drills.openloop import post
from tests.e2e import statuses
from tests.e2e.collector import Collector, Span, named_by, traced
from tests.e2e.gate import Gate
from tests.e2e.harness import PATIENCE_S, Server
from tests.e2e.statuses import Ask
from tests.stores import write_three, write_variant

TRACE, CALLER = "ab" * 16, "cd" * 8
PARENT = f"00-{TRACE}-{CALLER}-01"
STAGES = ["receive", "route", "queue", "infer", "respond"]
METHOD = "inference.GRPCInferenceService"
SLOW_MS = 300


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, gate: Gate
) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    write_variant(
        models, "slow", "fp32", delay_ms=SLOW_MS, latency_ms_at_1=1, latency_ms_at_32=1, **gate.echo
    )
    fault = tmp_path_factory.mktemp("faults") / "fault"
    write_variant(models, "broken", "fp32", fault_file=str(fault))
    with traced(models, collector, grpc_port=0) as server:
        fault.write_text("raise")
        yield server


def stub_of(server: Server) -> Any:
    own = [("grpc.use_local_subchannel_pool", 1)]
    return GRPCInferenceServiceStub(grpc.insecure_channel(server.grpc_address, options=own))


def stages_of(collector: Collector, whole: Span) -> list[Span]:
    """Its stages, which follow one another from its beginning to its end, in its trace."""
    inner = collector.inside(whole)
    assert {span.trace_id for span in inner} == {whole.trace_id}
    assert {span.kind for span in inner} == {Proto.SPAN_KIND_INTERNAL}
    starts = [span.start_ns for span in inner]
    ends = [span.end_ns for span in inner]
    assert starts == [whole.start_ns, *ends[:-1]] and ends[-1] == whole.end_ns
    return inner


def test_a_request_over_rest_with_its_callers_trace(server: Server, collector: Collector) -> None:
    answer = server.infer(
        headers={
            "traceparent": PARENT,
            "tracestate": "vendor=1",
            "X-Request-Id": "rest-1",
            "Gearshift-Optimize": "latency",
            "Gearshift-Relax": "latency,cost",
        }
    )
    assert answer.headers["x-request-id"] == "rest-1"
    whole = collector.request("rest-1")
    assert (whole.trace_id, whole.parent_id, whole.state) == (TRACE, CALLER, "vendor=1")
    assert whole.kind == Proto.SPAN_KIND_SERVER
    assert whole.name == "POST /v2/models/{model}/infer"
    assert named_by(answer.headers["traceparent"]) == (TRACE, whole.span_id)
    said = whole.attributes
    assert said["http.request.method"] == "POST"
    assert said["http.response.status_code"] == 200
    assert said["url.path"] == "/v2/models/echo/infer"
    assert said["gearshift.variant"] == answer.headers["gearshift-variant"] == "small"
    assert said["gearshift.reason"] == "fastest"
    assert said["gearshift.outcome"] == "ok"
    assert said["gearshift.constraint.relax"] == "latency,cost"
    assert "error.type" not in said and not whole.failed
    stages = stages_of(collector, whole)
    assert [span.name for span in stages] == STAGES
    # What the answer itself says of queue and inference.
    infer_ms = float(re.findall(r"infer;dur=([0-9.]+)", answer.headers["server-timing"])[0])
    infer = stages[3]
    assert (infer.end_ns - infer.start_ns) / 1e6 <= infer_ms
    assert abs(whole.end_ns / 1e9 - time.time()) < PATIENCE_S
    about = whole.resource
    assert about["service.name"] == "gearshift"
    # What the environment says comes before what we would say ourselves.
    assert (about["service.instance.id"], about["service.version"]) == ("pod-7", "canary-3")


def test_what_gave_way_is_said(server: Server, collector: Collector) -> None:
    wanted = {"Gearshift-Min-Accuracy": "0.999", "Gearshift-Relax": "latency,cost,accuracy"}
    answer = server.infer(headers={**wanted, "X-Request-Id": "gave-way"})
    assert answer.headers["gearshift-relaxed"] == "accuracy"
    said = collector.request("gave-way").attributes
    assert said["gearshift.relaxed"] == ["accuracy"]
    assert said["gearshift.reason"] == "relaxed"
    assert said["gearshift.cached"] is False


def test_a_request_over_grpc_with_its_callers_trace(server: Server, collector: Collector) -> None:
    metadata = [("traceparent", PARENT), ("tracestate", "vendor=1"), ("x-request-id", "grpc-1")]
    answer, call = stub_of(server).ModelInfer.with_call(statuses.message(Ask()), metadata=metadata)
    trailing = dict(call.trailing_metadata())
    assert trailing["x-request-id"] == "grpc-1"
    whole = collector.request("grpc-1")
    assert named_by(trailing["traceparent"]) == (TRACE, whole.span_id)
    assert (whole.trace_id, whole.parent_id, whole.state) == (TRACE, CALLER, "vendor=1")
    assert whole.kind == Proto.SPAN_KIND_SERVER
    assert whole.name == whole.attributes["rpc.method"] == f"{METHOD}/ModelInfer"
    assert whole.attributes["rpc.response.status_code"] == "OK"
    assert whole.attributes["gearshift.variant"] == answer.model_version
    assert [span.name for span in stages_of(collector, whole)] == STAGES


def test_each_request_of_a_stream_has_a_span(server: Server, collector: Collector) -> None:
    messages = [statuses.message(Ask()), statuses.message(Ask(model="nobody"))]
    for number, message in enumerate(messages):
        message.id = f"stream-{number}"
    answers = list(
        stub_of(server).ModelStreamInfer(iter(messages), metadata=[("traceparent", PARENT)])
    )
    assert [bool(answer.error_message) for answer in answers] == [False, True]
    good, bad = (collector.request(f"stream-{number}") for number in range(2))
    assert good.name == bad.name == f"{METHOD}/ModelStreamInfer"
    assert good.trace_id == bad.trace_id == TRACE and good.span_id != bad.span_id
    for answer, whole in zip(answers, (good, bad), strict=True):
        said = answer.infer_response.parameters["traceparent"].string_param
        assert named_by(said) == (TRACE, whole.span_id)
    assert bad.attributes["rpc.response.status_code"] == "NOT_FOUND" and not bad.failed


@pytest.mark.parametrize(
    "given",
    [
        None,
        "nonsense",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{CALLER}-01",
        f"00-{TRACE.upper()}-{CALLER}-01",
        f"00-{TRACE}-{CALLER}-01-more",
    ],
)
def test_without_a_usable_parent_a_trace_begins_here(
    server: Server, collector: Collector, given: str | None
) -> None:
    answer = server.infer(headers={"traceparent": given} if given else {})
    whole = collector.request(answer.headers["x-request-id"])
    assert whole.trace_id != TRACE and whole.parent_id == ""
    assert named_by(answer.headers["traceparent"]) == (whole.trace_id, whole.span_id)


def test_a_later_version_of_the_header_is_understood(server: Server, collector: Collector) -> None:
    answer = server.infer(headers={"traceparent": f"01-{TRACE}-{CALLER}-01-more"})
    assert collector.request(answer.headers["x-request-id"]).parent_id == CALLER


def test_what_the_caller_does_not_record_is_not_recorded(
    server: Server, collector: Collector
) -> None:
    unseen = {"traceparent": f"00-{TRACE}-{CALLER}-00", "X-Request-Id": "unseen"}
    assert "traceparent" not in server.infer(headers=unseen).headers
    server.infer(headers={"X-Request-Id": "seen"})
    collector.request("seen")
    names = {span.attributes.get("gearshift.request_id") for span in collector.spans}
    assert "unseen" not in names


@pytest.mark.parametrize(
    ("ask", "status", "ours", "stages"),
    [
        (Ask(model="nobody"), 404, False, ["receive"]),
        (Ask(headers={"Gearshift-Optimize": "luck"}), 400, False, ["receive"]),
        (Ask(headers={"Gearshift-Min-Accuracy": "0.999"}), 422, False, STAGES[:2]),
        (Ask(model="slow", headers={"Gearshift-Max-Latency-Ms": "30"}), 504, True, STAGES[:4]),
        (Ask(model="broken"), 500, True, STAGES),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_how_requests_that_fail_end(
    server: Server, collector: Collector, ask: Ask, status: int, ours: bool, stages: list[str]
) -> None:
    code = statuses.CODES[status]
    for protocol, by in (("rest", statuses.by_rest), ("grpc", statuses.by_grpc)):
        server.await_idle()
        named = Ask(ask.model, None, {**ask.headers, "x-request-id": f"{protocol}-{status}"})
        problem, _, traceparent = by(server, named)
        assert problem["status"] == status
        whole = collector.request(f"{protocol}-{status}")
        assert named_by(traceparent or "") == (whole.trace_id, whole.span_id)
        said = whole.attributes
        ending = status if protocol == "rest" else code
        key = "http.response.status_code" if protocol == "rest" else "rpc.response.status_code"
        assert said[key] == ending
        assert said["gearshift.outcome"] == problem["code"]
        assert whole.failed == ours and said.get("error.type") == (str(ending) if ours else None)
        assert ("gearshift.model" in said) == (ask.model != "nobody")
        inner = stages_of(collector, whole)
        assert [span.name for span in inner] == stages[: len(inner)] and len(inner) >= 1
        assert len(inner) == len(stages) or status == 504
    server.await_idle()


def test_a_caller_who_leaves(server: Server, collector: Collector, gate: Gate) -> None:
    host, port = server.address.split(":")
    body = json.dumps({"inputs": [statuses.IMAGE]}).encode()
    with gate.shut():
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(post("/v2/models/slow/infer", body, {"X-Request-Id": "left-rest"}))
            server.await_busy()
        whole = collector.request("left-rest")
    assert whole.attributes["gearshift.outcome"] == "caller-left" and not whole.failed
    assert "http.response.status_code" not in whole.attributes
    server.await_idle()
    with gate.shut():
        call = stub_of(server).ModelInfer.future(
            statuses.message(Ask(model="slow")), metadata=[("x-request-id", "left-grpc")]
        )
        server.await_busy()
        call.cancel()
        whole = collector.request("left-grpc")
    assert whole.attributes["rpc.response.status_code"] == "CANCELLED" and not whole.failed
    server.await_idle()


def test_a_batch_is_told_though_no_request_ends_after_it(
    server: Server, collector: Collector, gate: Gate
) -> None:
    host, port = server.address.split(":")
    body = json.dumps({"inputs": [statuses.IMAGE]}).encode()
    with gate.shut():
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(post("/v2/models/slow/infer", body, {"X-Request-Id": "the-last"}))
            server.await_busy()
        whole = collector.request("the-last")
    (run,) = [each for each in collector.inside(whole) if each.name == "infer"]
    ((_, span_id),) = run.links
    batch = collector.waited_for(lambda span: span.span_id == span_id)
    assert batch.links == {(whole.trace_id, whole.span_id)} and batch.end_ns > whole.end_ns
    server.await_idle()


def test_a_batch_is_linked_with_its_requests(
    server: Server, collector: Collector, gate: Gate
) -> None:
    def ask(number: int) -> None:
        server.infer("slow", headers={"X-Request-Id": f"batch-{number}"})

    with ThreadPoolExecutor(4) as clients, gate.shut():
        clients.submit(ask, 0)
        server.await_busy()
        for number in (1, 2, 3):
            clients.submit(ask, number)
        server.await_busy(queued=3)
    together = [collector.request(f"batch-{number}") for number in (1, 2, 3)]
    runs = [next(s for s in collector.inside(each) if s.name == "infer") for each in together]
    assert [run.attributes["gearshift.batch.requests"] for run in runs] == [3, 3, 3]
    assert len({run.links for run in runs}) == 1
    ((trace_id, span_id),) = runs[0].links
    batch = collector.waited_for(lambda span: span.span_id == span_id)
    assert batch.name == "batch" and batch.trace_id == trace_id and batch.parent_id == ""
    assert batch.links == {(each.trace_id, each.span_id) for each in together}
    assert batch.attributes["gearshift.batch.rows"] == 3
    assert (batch.end_ns - batch.start_ns) / 1e6 >= SLOW_MS
    assert [span.span_id for span in collector.spans].count(span_id) == 1
