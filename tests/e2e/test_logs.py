"""The access log and the log of a real server."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.e2e import statuses
from tests.e2e.harness import Server, infer_body, until
from tests.e2e.statuses import Ask
from tests.stores import write_three, write_variant

TRACE = "ab" * 16
PARENT = f"00-{TRACE}-{'cd' * 8}-01"


class Lines:
    """The access log of a server, in a file of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[dict[str, Any]]:
        """Every line so far."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def of(self, name: str) -> dict[str, Any]:
        """The line of a request, once it is written; there must be one."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.all() if line.get("request_id") == name]

        (line,) = until(found, f"{name} is logged")
        return line


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    return Lines(tmp_path_factory.mktemp("logs") / "access.log")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, lines: Lines) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    write_variant(models, "slow", "fp32", delay_ms=100, latency_ms_at_1=100, latency_ms_at_32=100)
    with Server(
        models,
        grpc_port=0,
        max_queue=4,
        max_batch=1,
        access_log="all",
        access_log_file=lines.path,
        log_format="json",
    ) as server:
        yield server


def test_an_answer_is_a_line(server: Server, lines: Lines) -> None:
    asked = {"max_latency_ms": 5000.0, "min_accuracy": "99%", "relax": "cost", "priority": "high"}
    headers = {f"Gearshift-{key.replace('_', '-')}": str(value) for key, value in asked.items()}
    answer = server.infer(
        rows=2, headers={**headers, "X-Request-Id": "an-answer", "traceparent": PARENT}
    )
    line = lines.of("an-answer")
    assert answer.headers["x-request-id"] == "an-answer"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    took = {key: line.pop(key) for key in ("latency_ms", "queue_ms", "infer_ms", "predicted_ms")}
    assert took["latency_ms"] >= took["infer_ms"] > 0 and took["queue_ms"] > 0
    assert line == {
        "level": "info",
        "logger": "gearshift.access",
        "message": "answered",
        "request_id": "an-answer",
        "trace_id": TRACE,
        "span_id": "cd" * 8,
        "protocol": "rest",
        "tenant": "open",
        "key": None,
        "model": "echo",
        "outcome": "ok",
        "status": 200,
        "rows": 2,
        "constraints": asked,
        "variant": "fp32",
        "reason": answer.headers["gearshift-reason"].partition(";")[0],
        "relaxed": [],
        "accuracy": 0.95,
        "cost_usd_per_million": pytest.approx(
            float(answer.headers["gearshift-cost-usd-per-million"]), rel=1e-3
        ),
        "cached": False,
    }


def test_what_gave_way_and_what_was_given_again(tmp_path: Path) -> None:
    write_three(tmp_path)
    lines = Lines(tmp_path / "access.log")
    settings = {"access_log_file": lines.path, "log_format": "json", "response_cache_mb": 1}
    wanted = {"Gearshift-Min-Accuracy": "0.999", "Gearshift-Relax": "latency,cost,accuracy"}
    with Server(tmp_path, access_log="all", **settings) as server:
        for name in ("ran", "kept"):
            server.infer(headers={**wanted, "X-Request-Id": name})
        ran, kept = lines.of("ran"), lines.of("kept")
    assert ran["relaxed"] == kept["relaxed"] == ["accuracy"]
    assert (ran["cached"], kept["cached"]) == (False, True)


def test_a_request_over_grpc_is_one_too(server: Server, lines: Lines) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        message = statuses.message(Ask())
        message.id = "grpc-by-message"
        answer, call = stub.ModelInfer.with_call(message)
        assert dict(call.trailing_metadata())["x-request-id"] == "grpc-by-message"
        assert answer.parameters["x_request_id"].string_param == "grpc-by-message"
        stub.ModelInfer(message, metadata=[("x-request-id", "grpc-by-metadata")])
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(pb.ModelInferRequest(model_name="nobody"))
    refused = dict(caught.value.trailing_metadata())["x-request-id"]
    for name in ("grpc-by-message", "grpc-by-metadata"):
        line = lines.of(name)
        assert (line["protocol"], line["status"], line["variant"]) == ("grpc", "OK", "fp32")
    line = lines.of(refused)
    assert (line["status"], line["outcome"], line["model"]) == (
        "NOT_FOUND", "unknown-model", "unknown",
    )  # fmt: skip


def test_every_answer_has_a_name_and_every_refusal_a_line(server: Server, lines: Lines) -> None:
    asked: list[tuple[httpx.Response, str, int]] = [
        (server.infer("nobody"), "unknown-model", 404),
        (server.infer(headers={"Gearshift-Min-Accuracy": "2"}), "invalid-request", 400),
        (server.infer(headers={"Gearshift-Min-Accuracy": "0.999"}), "unsatisfiable", 422),
        (server.infer("slow", headers={"Gearshift-Max-Latency-Ms": "1"}), "unsatisfiable", 422),
        (server.infer(version="nothing"), "unknown-variant", 404),
    ]
    for answer, outcome, status in asked:
        line = lines.of(answer.headers["x-request-id"])
        assert (line["outcome"], line["status"]) == (outcome, status) == (
            answer.json()["code"], answer.status_code,
        )  # fmt: skip
        assert "variant" not in line and line["latency_ms"] >= 0
    names = [server.infer().headers["x-request-id"] for _ in range(3)]
    assert len(set(names)) == 3
    # A body's own name, which the answer repeats anyway; a header's comes first.
    assert server.infer(id="mine").headers["x-request-id"] == "mine"
    both = server.infer(id="mine", headers={"X-Request-Id": "proxy"})
    assert (both.headers["x-request-id"], both.json()["id"]) == ("proxy", "mine")
    assert server.infer(headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"
    # Whatever else is asked for has one as well.
    for path in ("/v2", "/nowhere", "/healthz", "/v2/models/nobody"):
        assert server.client.get(path, headers={"X-Request-Id": "x"}).headers["x-request-id"] == "x"
        assert server.client.get(path).headers["x-request-id"]


def test_requests_that_are_refused_alike_are_counted(server: Server, lines: Lines) -> None:
    body = json.dumps(infer_body()).encode()

    def ask(_: int) -> int:
        return server.client.post("/v2/models/slow/infer", content=body).status_code

    with ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(ask, range(400)))
    refused = answers.count(429)
    assert refused > 300 and answers.count(200) + refused == 400

    def told() -> int:
        mine = [line for line in lines.all() if line["model"] == "slow" and line["status"] == 429]
        return sum(int(line.get("requests", 1)) for line in mine)

    until(lambda: told() == refused, "all are told of")
    assert len([line for line in lines.all() if "requests" in line]) >= 1


def test_the_file_is_opened_again_on_sighup(server: Server, lines: Lines) -> None:
    before = server.infer(id="before").headers["x-request-id"]
    lines.of(before)
    moved = lines.path.with_suffix(".1")
    lines.path.rename(moved)
    server.process.send_signal(signal.SIGHUP)

    def opened() -> bool:
        server.infer()
        return lines.path.exists()

    until(opened, "it is opened again")
    lines.of(server.infer(id="after").headers["x-request-id"])
    assert before in moved.read_text()
    lines.path.write_text(moved.read_text() + lines.path.read_text())  # for the tests behind this


def test_errors_alone_as_text_where_the_log_goes_until_the_end(tmp_path: Path) -> None:
    write_variant(tmp_path / "models", "echo", "fp32")
    log = tmp_path / "log"
    with Server(tmp_path / "models", access_log="errors", log_file=log) as server:
        assert server.infer(id="fine").status_code == 200
        assert server.infer(id="bad", headers={"Gearshift-Relax": "all"}).status_code == 400
        name = server.infer("nobody", headers={"X-Request-Id": "the-last"}).headers["x-request-id"]
    text = log.read_text()
    assert "fine" not in text
    last = text.splitlines()[-1]
    assert f"request_id={name} " in last and " outcome=unknown-model status=404 " in last


def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with pytest.raises(AssertionError, match="the server ended: 2") as caught:
        Server(tmp_path, access_log="all", access_log_file=tmp_path / "no" / "file").__enter__()
    told = f"access_log_file: {tmp_path}/no/file cannot be opened"
    assert told in caught.value.__notes__[0]
