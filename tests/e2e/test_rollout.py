"""A server that is told to stop: it gives notice, and behind nginx nothing fails."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tritonclient import grpc as triton

from tests.drills.rollout import rollout, table
from tests.e2e.gate import Gate
from tests.e2e.harness import Server, until
from tests.needs import program
from tests.stores import write_variant

NOTICE_S = 3.0


def test_two_gateways_are_replaced_and_nothing_fails(tmp_path: Path) -> None:
    program("nginx", "nginx-light", "../sbin")
    steps, again = rollout(tmp_path, steady_s=1.5, rest=2, rpc=2, notice_s=0.3)
    said = table(steps, again)
    assert [one.failed for one in steps] == [{}] * len(steps), said
    assert len(steps) == 7 and all(one.requests for one in steps), said
    # Only what was not taken: refused connections, and a new gateway that is not ready yet.
    tries = {status for line in again for status in re.split(", | : ", line.split(" ", 4)[4])}
    assert tries <= {"502", "503", "200"}, again


def test_a_server_gives_notice_before_it_closes(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with Server(tmp_path, grpc_port=0, notice_seconds=NOTICE_S) as server:
        assert "connection" not in server.infer().headers
        with triton.InferenceServerClient(server.grpc_address) as client:
            assert client.is_server_ready() and client.is_model_ready("echo")
            server.terminate()
            until(lambda: server.client.get("/readyz").status_code == 503, "it is not ready")
            ready = server.client.get("/v2/models/echo/ready")
            assert ready.status_code == 503 and ready.headers["connection"] == "close"
            assert not client.is_server_ready() and not client.is_model_ready("echo")
            answer = server.infer()
            assert answer.status_code == 200 and answer.headers["connection"] == "close"
            assert server.client.get("/healthz").status_code == 200
        assert server.process.wait(30) == 0


def test_what_runs_when_the_ports_close_is_answered(tmp_path: Path) -> None:
    """Over REST and gRPC, with no notice at all."""
    gate = Gate(tmp_path)
    write_variant(tmp_path / "models", "echo", "fp32", **gate.echo)
    image = triton.InferInput("image", [1, 4], "FP32")
    image.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with (
        Server(tmp_path / "models", grpc_port=0, max_batch=1) as server,
        triton.InferenceServerClient(server.grpc_address) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        with gate.shut():
            rest = pool.submit(server.infer)
            rpc = pool.submit(client.infer, "echo", [image])
            server.await_busy(queued=1)
            server.terminate()
            until(lambda: not server.listens(), "the ports close")
        assert rest.result().status_code == 200
        assert rpc.result().as_numpy("logits") is not None
        assert server.process.wait(30) == 0
