"""Starting and stopping: what cannot serve is kept out and shown, and a stop drops no request."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import write_variant


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "mixed", "fp32", accuracy=0.95, fail_load=True)
    write_variant(models, "mixed", "shape", accuracy=0.94, wrong_shape=True)
    write_variant(models, "mixed", "warm", accuracy=0.93, fail_after=2)
    write_variant(models, "mixed", "good", accuracy=0.92)
    flip(write_variant(models, "mixed", "corrupt", accuracy=0.91) / "scores.safetensors")
    flip(write_variant(models, "mixed", "card", accuracy=0.91) / "card.json")
    (write_variant(models, "mixed", "bare", accuracy=0.91) / "manifest.json").unlink()
    write_variant(models, "other", "fp32")
    with Server(models, max_batch=4) as server:
        yield server


def flip(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        ("fp32", "echo refuses to load"),
        ("shape", "output 'logits' has shape (2, 3), expected (1, 3)"),
        ("warm", "echo fails from run 2 on"),
    ],
)
def test_variant_that_failed_is_kept_out_and_shown(server: Server, variant: str, why: str) -> None:
    ready = server.client.get(f"/v2/models/mixed/versions/{variant}/ready")
    assert ready.status_code == 503
    assert why in ready.json()["detail"]
    until(lambda: f"failed: mixed/{variant}: {why}" in server.log(), "the failure is told")
    assert why in server.client.get("/console/state").text
    assert server.metric("gearshift_variant_ready", model="mixed", variant=variant) == 0
    pinned = server.infer("mixed", version=variant)
    assert pinned.status_code == 503
    assert pinned.json()["code"] == "not-ready"


@pytest.mark.parametrize("variant", ["corrupt", "card", "bare"])
def test_variant_that_is_not_whole_is_left_out_and_named(server: Server, variant: str) -> None:
    until(lambda: f"left out: mixed/{variant}: " in server.log(), "it is named")
    assert variant not in server.client.get("/v2/models/mixed").json()["versions"]
    pinned = server.infer("mixed", version=variant)
    assert (pinned.status_code, pinned.json()["code"]) == (503, "not-ready")
    why = "manifest.json cannot be read" if variant == "bare" else "has digest"
    assert why in pinned.json()["detail"]


def test_the_others_serve(server: Server) -> None:
    assert server.client.get("/v2/health/ready").status_code == 200
    assert server.client.get("/v2/models/mixed/ready").status_code == 200
    assert server.client.get("/v2/models/mixed/versions/good/ready").status_code == 200
    assert server.metric("gearshift_variant_ready", model="mixed", variant="good") == 1
    response = server.infer("mixed", headers={"Gearshift-Explain": "true"})
    assert response.headers["gearshift-variant"] == "good"
    refused = response.json()["parameters"]["gearshift_decision"]["refused"]
    assert {one["variant"]: one["constraint"] for one in refused} == {
        "fp32": "ready",
        "shape": "ready",
        "warm": "ready",
    }
    assert server.infer("other").headers["gearshift-variant"] == "fp32"


def test_variant_that_fails_later_fails_its_requests_alone(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32", accuracy=0.95, fail_after=4)
    write_variant(tmp_path, "echo", "small", accuracy=0.90)
    with Server(tmp_path, max_batch=2) as server:
        assert server.infer(version="fp32").status_code == 200
        for _ in range(3):
            failed = server.infer(version="fp32")
            assert failed.status_code == 500
            assert failed.json()["code"] == "engine-failed"
            assert "echo fails from run 4 on" in failed.json()["detail"]
            assert "Traceback" not in failed.text
            assert server.infer(version="small").status_code == 200
        assert server.metric("gearshift_requests_total", outcome="engine-failed") == 3


def test_not_ready_while_loading(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32", delay_ms=300)
    with Server(tmp_path, wait="/v2/health/live", max_batch=8) as server:
        assert server.client.get("/v2/health/ready").status_code == 503
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/v2/models/echo/ready").status_code == 503
        early = server.infer()
        assert early.status_code == 503
        assert (early.json()["code"], early.json()["retryable"]) == ("not-ready", True)
        assert (
            "loading" in server.client.get("/v2/models/echo/versions/fp32/ready").json()["detail"]
        )
        until(
            lambda: server.client.get("/v2/health/ready").status_code == 200,
            "it is ready when it has loaded",
        )
        assert server.infer().status_code == 200


def test_model_without_any_variant_that_serves(tmp_path: Path) -> None:
    write_variant(tmp_path, "broken", "fp32", fail_load=True)
    write_variant(tmp_path, "echo", "fp32")
    with Server(tmp_path, wait="/v2/models/echo/ready") as server:
        until(lambda: "failed: broken/fp32" in server.log(), "the failure is told")
        assert server.client.get("/v2/health/ready").status_code == 503
        assert server.infer("broken").status_code == 503
        assert server.infer("echo").status_code == 200


def test_stop_answers_everything_that_was_accepted(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    write_variant(
        tmp_path, "echo", "fp32", latency_ms_at_1=1000, latency_ms_at_32=1000, delay_ms=1000,
        delay_after=9,
    )  # fmt: skip
    with Server(tmp_path, max_batch=8) as server:
        running = [pool.submit(server.infer)]
        server.await_busy()
        running += [pool.submit(server.infer) for _ in range(8)]
        server.await_busy(queued=8)
        server.terminate()
        assert [one.result().status_code for one in running] == [200] * 9
        assert server.process.wait(PATIENCE_S) == 0
        assert server.log().rstrip().endswith("stopped")
        with pytest.raises(httpx.TransportError):
            server.infer()


def test_stop_while_loading(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32", delay_ms=100)
    with Server(tmp_path, wait="/v2/health/live", max_batch=4) as server:
        server.terminate()
        assert server.process.wait(PATIENCE_S) == 0


def test_stop_does_not_wait_for_ever(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Not even for an engine that hangs."""
    write_variant(tmp_path, "echo", "fp32", delay_ms=1000 * PATIENCE_S, delay_after=2)
    with Server(tmp_path, max_batch=1, drain_seconds=1) as server:
        running = [pool.submit(server.infer)]
        server.await_busy()
        running += [pool.submit(server.infer) for _ in range(4)]
        server.await_busy(queued=4)
        server.terminate()
        assert server.process.wait(PATIENCE_S / 2) == 0
        refused = [one.result() for one in running]
        assert [one.status_code for one in refused] == [503] * 5
        assert {one.json()["code"] for one in refused} == {"not-ready"}
        assert "a lane still runs its batch" in server.log()
        assert "Traceback" not in server.log()


def test_store_where_nothing_is_whole(tmp_path: Path) -> None:
    flip(write_variant(tmp_path, "echo", "fp32") / "card.json")
    finished = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "serve", "--models", str(tmp_path), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert finished.returncode == 1
    message = " ".join(finished.stderr.split())
    assert "nothing here can be served: echo/fp32: card.json has digest" in message
    assert "Traceback" not in message
