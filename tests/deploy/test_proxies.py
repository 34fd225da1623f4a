"""nginx runs its own file, in front of gateways and of what is none."""

from __future__ import annotations

import http.client
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings
from tests.drills.rollout import CHANNEL
from tests.e2e.harness import Server, infer_body, until
from tests.needs import program
from tests.proxies import CONFIG, Nginx, free_ports, nginx, written
from tests.stores import write_variant

SLOW_MS = 1000
INFER = "/v2/models/echo/infer"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Nginx]]:
    """nginx before one gateway; nobody listens where the other should be."""
    folder = tmp_path_factory.mktemp("proxied")
    write_variant(folder / "models", "echo", "fp32")
    write_variant(
        folder / "models", "slow", "fp32", latency_ms_at_1=SLOW_MS, latency_ms_at_32=2 * SLOW_MS,
        delay_ms=SLOW_MS,
    )  # fmt: skip
    rest, rpc, nobody, none = free_ports(4)
    with (
        Server(folder / "models", port=rest, grpc_port=rpc) as server,
        nginx(folder, [(nobody, none), (rest, rpc)]) as proxy,
    ):
        yield server, proxy


def _ask(
    proxy: Nginx, path: str = INFER, body: Any = None, method: str = "POST", **headers: str
) -> http.client.HTTPResponse:
    host, port = proxy.rest.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, json.dumps(body or infer_body()), named)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_nginx_takes_the_file(tmp_path: Path) -> None:
    ports = free_ports(2)
    path = written(tmp_path, [(8080, 8081), (8180, 8181)], (ports[0], ports[1]))
    command = [program("nginx", "nginx-light", "../sbin"), "-t", "-p", str(tmp_path), "-c"]
    tested = subprocess.run([*command, str(path)], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr, tested.stderr


def test_a_gateway_that_is_gone_costs_no_request(proxied: tuple[Server, Nginx]) -> None:
    _, proxy = proxied
    assert [_ask(proxy).status for _ in range(20)] == [200] * 20
    assert any(line.endswith("502, 200") for line in proxy.sent_again())


def test_deadlines_and_names_pass_through(proxied: tuple[Server, Nginx]) -> None:
    _, proxy = proxied
    own = _ask(proxy, gearshift_max_latency_ms="30000", x_request_id="mine-1")
    assert own.status == 200
    assert own.headers["x-request-id"] == "mine-1"
    assert len(_ask(proxy).headers["x-request-id"]) == 32, "nginx gives one to who has none"
    # It is the gateway that knows that the deadline cannot be kept, and says so.
    late = _ask(proxy, "/v2/models/slow/infer", gearshift_max_latency_ms="20")
    assert late.status == 422


def test_a_grpc_deadline_passes_through(proxied: tuple[Server, Nginx]) -> None:
    import numpy as np
    from tritonclient import grpc as triton
    from tritonclient.utils import InferenceServerException

    server, proxy = proxied
    image = triton.InferInput("image", [1, 4], "FP32")
    image.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with triton.InferenceServerClient(proxy.grpc, channel_args=CHANNEL) as client:
        assert client.infer("echo", [image]).as_numpy("logits") is not None
        with pytest.raises(InferenceServerException):
            client.infer("slow", [image], client_timeout=SLOW_MS / 2000)
    # The gateway has it from grpc-timeout alone: else it would see a caller who left.
    until(lambda: server.metric("gearshift_deadlines_total", model="slow") == 1, "it is counted")
    assert server.metric("gearshift_deadlines_total", model="slow", outcome="missed") == 1


def test_large_bodies_pass_and_too_large_ones_do_not(proxied: tuple[Server, Nginx]) -> None:
    server, proxy = proxied
    rows = 1_300_000
    data = "[" + "0," * (4 * rows - 1) + "0]"
    tensor = {"name": "image", "datatype": "FP32", "shape": [rows, 4], "data": "DATA"}
    body = json.dumps({"inputs": [tensor]}).replace('"DATA"', data)
    assert len(body) > 10_000_000
    host, port = proxy.rest.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("POST", INFER, body)
    answer = connection.getresponse()
    assert answer.status == 200
    assert f'"shape":[{rows},3]' in answer.read(1000).decode()
    connection.close()
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.putrequest("POST", INFER)
    connection.putheader("Content-Length", str(Settings().max_body_bytes + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert server.infer().status_code == 200


def test_the_metrics_are_not_for_everybody(proxied: tuple[Server, Nginx]) -> None:
    server, proxy = proxied
    assert _ask(proxy, "/metrics", method="GET").status == 404
    assert server.client.get("/metrics").status_code == 200


@contextmanager
def _answering(port: int, status: int, seen: list[str]) -> Iterator[None]:
    """A server that answers every request so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.headers["x-request-id"])
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("status", [503, 429, 500, 504])
def test_only_what_was_not_taken_is_sent_again(status: int, tmp_path: Path) -> None:
    good, bad, *grpc = free_ports(4)
    seen: list[str] = []
    with (
        _answering(good, 200, seen),
        _answering(bad, status, seen),
        nginx(tmp_path, [(good, grpc[0]), (bad, grpc[1])]) as proxy,
    ):
        statuses = [_ask(proxy).status for _ in range(4)]
        if status == 503:
            assert statuses == [200] * 4
            assert len(seen) > 4, "one of them was sent again"
        else:
            assert sorted(statuses) == [200, 200, status, status]
            assert len(seen) == len(set(seen)) == 4, "none was sent again"


def test_nginx_closes_idle_connections_before_the_gateway_does() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    idle = {line.split()[1] for line in text.splitlines() if "keepalive_timeout" in line}
    assert idle == {"60s;"}
    assert Settings().idle_timeout_seconds > 60
    assert "client_max_body_size 64m;" in text and Settings().max_body_bytes == 64 << 20
