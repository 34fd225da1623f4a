"""No secret of a caller or an operator is in anything that a real server says."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from router.card import TensorSpec
from tests.e2e.collector import Collector
from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import write_variant

SECRET = "swordfish"


def test_no_secret_is_in_anything_that_is_said(tmp_path: Path) -> None:
    """Everything that a caller or an operator may hold secret, everywhere it may stand."""
    models = tmp_path / "models"
    write_variant(
        models,
        "echo",
        "fp32",
        inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,)),),
        outputs=(TensorSpec(name="same", datatype="BYTES", shape=(-1,)),),
        mirror=True,
    )
    write_variant(models, "image", "fp32", fail_length=5)
    access = tmp_path / "access.log"
    said: list[str] = []
    with Collector() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        with Server(
            models,
            grpc_port=0,
            tracing=True,
            access_log="all",
            access_log_file=access,
            log_level="debug",
        ) as server:
            made = httpx.post(f"{server.admin_url}/admin/keys", json={"name": "ours"}).json()["key"]
            wrong = {"Authorization": f"Bearer {SECRET}"}
            right = {"Authorization": f"Bearer {made}"}
            _ask_over_rest(server, right, wrong)
            _ask_over_grpc(server, right, wrong)
            collector.request("the-last")
            said += [server.client.get("/metrics", headers=right).text]
            server.terminate()
            server.process.wait(PATIENCE_S)
            said += [access.read_text(), server.log()]
        said += [raw.decode("latin-1") for raw in collector.raw]
        assert collector.headers["authorization"] == SECRET
    found = [
        text[max(0, text.find(secret) - 300) : text.find(secret) + 100]
        for text in said
        for secret in (SECRET, made.split("_", 2)[2])
        if secret in text
    ]
    assert not found, "\n\n".join(found)
    assert "the-last" in access.read_text() and '"the-last"' not in said[0]


def _ask_over_rest(server: Server, right: dict[str, str], wrong: dict[str, str]) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [SECRET]}
    good = {"inputs": [tensor], "parameters": {"note": SECRET}}
    bodies: list[Any] = [
        good,
        {**good, "id": f"an {SECRET}"},
        {**good, SECRET: 1},
        {**good, "parameters": {"optimize": SECRET}},
        {**good, "parameters": {"variant": SECRET}},
        {**good, "outputs": [{"name": SECRET}]},
        {"inputs": [{**tensor, "name": SECRET}]},
        {"inputs": [{**tensor, "datatype": SECRET}]},
        {"inputs": [{**tensor, "shape": [SECRET]}]},
        {"inputs": [{**tensor, "data": [[SECRET]]}]},
        SECRET,
    ]
    for headers in (right, wrong):
        for body in bodies:
            server.client.post("/v2/models/echo/infer", json=body, headers=headers)
    for more in (
        {"X-Own": SECRET},
        {"Cookie": f"session={SECRET}"},
        {"User-Agent": SECRET},
        {f"Gearshift-{SECRET}": "1"},
        {"Gearshift-Min-Accuracy": SECRET},
        {"Content-Encoding": SECRET},
        {"Inference-Header-Content-Length": SECRET},
        {"X-Request-Id": f"a {SECRET}"},
        {"tracestate": f"{SECRET}", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"},
        {"traceparent": f"00-{SECRET}"},
    ):
        server.client.post("/v2/models/echo/infer", json=good, headers={**right, **more})
    for path in (
        f"/v2/models/echo/infer?key={SECRET}",
        f"/v2/models/{SECRET}/infer",
        f"/v2/models/echo/versions/{SECRET}/infer",
        f"/v2/models/{SECRET}/decide",
        f"/{SECRET}",
    ):
        server.client.post(path, json=good, headers=right)
    server.client.post("/v2/models/echo/infer", content=SECRET.encode() * 10, headers=right)
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as raw:
        raw.sendall(f"GET / {SECRET}\r\n{SECRET}\r\n\r\n".encode())
        raw.recv(1000)
    # An engine that fails on what it was given.
    five = {"name": "image", "datatype": "FP32", "shape": [1, 5], "data": [1.0] * 5}
    server.client.post("/v2/models/image/infer", json={"inputs": [five]}, headers=right)
    server.client.post(
        "/v2/models/echo/infer", json=good, headers={**right, "X-Request-Id": "the-last"}
    )


def _ask_over_grpc(server: Server, right: dict[str, str], wrong: dict[str, str]) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for own, key in ((right, "x-own"), (wrong, "x-own"), (right, "gearshift-optimize")):
            metadata = [("authorization", own["Authorization"]), (key, SECRET)]
            for model, name in (("echo", "text"), ("echo", SECRET), (SECRET, "text")):
                message = pb.ModelInferRequest(model_name=model, id=f"a {SECRET}")
                tensor = message.inputs.add(name=name, datatype="BYTES", shape=[1])
                tensor.contents.bytes_contents.append(SECRET.encode())
                try:
                    stub.ModelInfer(message, metadata=metadata)
                except grpc.RpcError:
                    continue
            list(stub.ModelStreamInfer(iter([message]), metadata=metadata))


def test_a_databases_password_is_in_nothing_that_is_said(tmp_path: Path) -> None:
    write_variant(tmp_path / "models", "echo", "fp32")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql+psycopg://somebody:{SECRET}@127.0.0.1:{port}/keys"
    with Server(
        tmp_path / "models", wait="/healthz", database=url, log_level="debug", log_format="json"
    ) as server:
        until(lambda: "the ledger cannot be used" in server.log(), "it is told")
        assert server.infer().status_code == 503
        server.terminate()
        server.process.wait(PATIENCE_S)
        assert SECRET not in server.log()
