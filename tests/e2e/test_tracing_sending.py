"""Traces on their way to a collector: which are sent, when and by whom, and what is lost."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from gateway.processes.cores import usable_cores
from gateway.trust import keys as api_keys
from gateway.trust.ledger import Ledger
from tests.e2e import statuses
from tests.e2e.collector import Collector, named_by, server_in, traced
from tests.e2e.harness import PATIENCE_S, until
from tests.e2e.statuses import Ask
from tests.stores import write_variant

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def test_one_who_is_not_let_in_is_told_too(tmp_path: Path, collector: Collector) -> None:
    write_variant(tmp_path, "echo", "fp32")
    ledger = Ledger(None, tmp_path / ".gearshift", "test")
    ledger.insert(api_keys.create(api_keys.wanted({"name": "a"}), datetime.now(UTC))[0])
    ledger.close()
    with traced(tmp_path, collector, grpc_port=0) as server:
        for protocol, by in (("rest", statuses.by_rest), ("grpc", statuses.by_grpc)):
            refused = by(server, Ask(headers={"x-request-id": f"{protocol}-401"}))
            assert refused.problem["status"] == 401
            whole = collector.request(f"{protocol}-401")
            assert named_by(refused.traceparent or "") == (whole.trace_id, whole.span_id)


def test_of_a_flood_those_are_told_who_were_recorded(tmp_path: Path, collector: Collector) -> None:
    write_variant(tmp_path, "slow", "fp32", delay_ms=50, latency_ms_at_1=50, latency_ms_at_32=50)
    with traced(tmp_path, collector, max_queue=4, max_batch=1) as server:

        def ask(number: int) -> httpx.Response:
            return server.infer("slow", headers={"X-Request-Id": f"flood-{number}"})

        with ThreadPoolExecutor(40) as clients:
            answers = list(clients.map(ask, range(300)))
    # The server has ended, so whatever was recorded has come.
    spans = {(span.trace_id, span.span_id) for span in collector.spans}
    told = [one.headers["traceparent"] for one in answers if "traceparent" in one.headers]
    assert {named_by(one) for one in told} <= spans
    recorded = [
        span
        for span in collector.spans
        if str(span.attributes.get("gearshift.request_id")).startswith("flood-")
    ]
    assert len(told) == len(recorded)
    refused = [one for one in answers if one.status_code == 429]
    assert 0 < sum("traceparent" in one.headers for one in refused) < len(refused)


def test_what_was_not_sent_yet_is_sent_at_the_end(tmp_path: Path, collector: Collector) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with traced(tmp_path, collector, delay_ms=60_000, response_cache_mb=1) as server:
        for name in ("the-first", "the-last"):
            server.infer(headers={"X-Request-Id": name})
    sent = {span.attributes.get("gearshift.request_id"): span for span in collector.spans}
    assert sent["the-first"].attributes["gearshift.cached"] is False
    assert sent["the-last"].attributes["gearshift.cached"] is True


def test_what_the_collector_refuses_is_counted(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with Collector(status=400) as refusing, traced(tmp_path, refusing) as server:

        def lost() -> float:
            return server.metric("gearshift_traces_dropped_total")

        assert lost() == 0
        assert all(server.infer().status_code == 200 for _ in range(3))
        until(lambda: lost() == 3, "all are counted")
        assert {span.name for span in refusing.spans} >= {"POST /v2/models/{model}/infer"}


def test_a_collector_that_is_gone_is_in_nobodys_way(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes what comes, and never answers
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "10",
            "OTEL_BSP_MAX_QUEUE_SIZE": "12",
        }
        with server_in(tmp_path, environment, drain_seconds=4) as server:
            answers = [server.infer() for _ in range(20)]
            assert [each.text for each in answers if each.status_code != 200] == []
            until(
                lambda: server.metric("gearshift_traces_dropped_total") >= 20 - 2 - 2,
                "what there is no room for is dropped",
            )
            assert server.infer().status_code == 200
            server.terminate()
            assert server.process.wait(PATIENCE_S) == 0
            # Those being sent, one or two, and two that waited; the others are counted already.
            said = re.findall(r"lost at the server's end: (.*)", server.log())
    assert len(said) == 1
    assert re.fullmatch("0 lines of the access log, the traces of [34] requests", said[0])


def test_what_is_said_of_a_collector_that_is_gone_holds_no_key_to_it(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with socket.create_server(("127.0.0.1", 0)) as once:
        gone = f"127.0.0.1:{once.getsockname()[1]}"
    environment = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://me:swordfish@{gone}/v1/traces?key=swordfish",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
    }
    with server_in(tmp_path, environment, log_level="debug") as server:
        assert server.infer().status_code == 200
        until(lambda: server.metric("gearshift_traces_dropped_total") == 1, "it is given up")
        said = server.log()
    assert "/v1/traces" in said and "swordfish" not in said


def test_the_samplers_of_the_environment(tmp_path: Path, collector: Collector) -> None:
    write_variant(tmp_path, "echo", "fp32")
    environment = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=swordfish",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0",
        "OTEL_SERVICE_NAME": "mine",
    }
    with server_in(tmp_path, environment) as server:
        server.infer(headers={"X-Request-Id": "root"})
        server.infer(headers={"X-Request-Id": "child", "traceparent": PARENT})
        assert collector.request("child").resource["service.name"] == "mine"
    names = {span.attributes.get("gearshift.request_id") for span in collector.spans}
    assert "root" not in names
    assert collector.headers["x-collector-key"] == "swordfish"


@pytest.mark.skipif(usable_cores() < 2, reason="two workers need two cores")
def test_workers_send_their_own(tmp_path: Path, collector: Collector) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with traced(tmp_path, collector, workers=2) as server:
        until(lambda: "\nready: http://" in server.log(), "all workers have settled")

        def both_have_sent() -> bool:
            with httpx.Client(base_url=server.client.base_url) as client:
                client.post("/v2/models/echo/infer", json={"inputs": [statuses.IMAGE]})
            workers = {span.resource.get("gearshift.worker") for span in collector.spans}
            return {0, 1} <= workers

        until(both_have_sent, "both workers have sent spans")
