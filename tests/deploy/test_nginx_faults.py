"""What goes wrong behind nginx costs what it must, no more; and what is not passed on."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from gateway.settings import Settings
from tests.deploy import operators
from tests.deploy.test_proxies import INFER, _ask
from tests.e2e.harness import Server
from tests.proxies import CONFIG, Nginx, free_ports, nginx
from tests.stores import write_variant

FRAGILE = "/v2/models/fragile/infer"


def test_a_model_that_is_broken_costs_the_others_nothing(tmp_path: Path) -> None:
    models, fault = tmp_path / "models", tmp_path / "fault"
    write_variant(models, "echo", "fp32")
    write_variant(models, "fragile", "fp32", fault_file=str(fault))
    ports = free_ports(4)
    with ExitStack() as stack:
        for place in (ports[:2], ports[2:]):
            stack.enter_context(
                Server(models, port=place[0], grpc_port=place[1], breaker_seconds=60)
            )
        proxy = stack.enter_context(nginx(tmp_path, [(ports[0], ports[1]), (ports[2], ports[3])]))
        fault.write_text("raise")
        # Each gateway fails it until its breaker is open.
        statuses = [_ask(proxy, FRAGILE).status for _ in range(20)]
        assert statuses[-4:] == [503] * 4, statuses
        for _ in range(10):
            refused = _ask(proxy, FRAGILE)
            assert refused.status == 503
            assert refused.headers["content-type"] == "application/problem+json", "the gateway's"
            assert _ask(proxy).status == 200
        fault.unlink()


@contextmanager
def _gone() -> Iterator[int]:
    """A port where connections are neither taken nor refused, as when a machine is gone."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            # As many as may wait to be accepted, and more.
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@contextmanager
def _hanging_up() -> Iterator[int]:
    """A port whose connections are closed once something was said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    taken, _ = listener.accept()
                except OSError:
                    return
                with taken:
                    taken.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _called(proxy: Nginx, calls: int) -> None:
    """So many calls, each on a connection of its own, none of which the client repeats."""
    image = triton.InferInput("image", [1, 4], "FP32")
    image.set_data_from_numpy(np.zeros((1, 4), np.float32))
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    for _ in range(calls):
        with triton.InferenceServerClient(proxy.grpc, channel_args=options) as client:
            assert client.infer("echo", [image]).as_numpy("logits") is not None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32")
    rest, rpc = free_ports(2)
    with Server(models, port=rest, grpc_port=rpc) as server:
        yield server


def _place(server: Server) -> tuple[int, int]:
    return int(server.address.split(":")[-1]), int(server.grpc_address.split(":")[-1])


@pytest.mark.parametrize("other", [_gone, _hanging_up])
def test_what_was_not_delivered_is_sent_to_the_other(
    server: Server, tmp_path: Path, other: object
) -> None:
    assert callable(other)
    # A call that has begun is not sent again: nginx does not keep what it has passed on.
    with other() as rest, _gone() as rpc, nginx(tmp_path, [(rest, rpc), _place(server)]) as proxy:
        assert [_ask(proxy).status for _ in range(6)] == [200] * 6
        _called(proxy, 4)
        again = proxy.sent_again()
        for path in (INFER, "/inference.GRPCInferenceService/ModelInfer"):
            found = [line for line in again if f" {path} " in line]
            assert found, path
            # Two failures, and it is left alone for a second.
            assert len(found) <= 4, found


@pytest.fixture(scope="module")
def alone(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx before one gateway that is both."""
    with nginx(tmp_path_factory.mktemp("alone"), [_place(server), _place(server)]) as proxy:
        yield proxy


def test_nobody_administrates_through_nginx(alone: Nginx) -> None:
    spelt = (
        "//v2/repository/models/echo/unload",
        "/v2/repository%2Fmodels/echo/unload",
        "/v2/%72epository/models/echo/unload",
        "/v2/models/../repository/models/echo/unload",
    )
    assert len(operators.paths()) > 10
    host, port = alone.rest.split(":")
    for path in (*operators.paths(), *spelt):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("POST", path, "{}")
        answer = connection.getresponse()
        assert (answer.status, b"not passed on" in answer.read()) == (403, True), path
        connection.close()
    with triton.InferenceServerClient(alone.grpc) as client:
        for change in (client.unload_model, client.load_model):
            with pytest.raises(InferenceServerException) as refused:
                change("echo")
            assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
        assert client.is_model_ready("echo")
    assert _ask(alone, "/v2/repository/index").status == 200
    assert _ask(alone, "/", method="GET").status == 200


def test_the_gateway_knows_what_came_through_nginx(alone: Nginx) -> None:
    host, port = alone.rest.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/console/state", headers={"Host": "localhost"})
    assert b'"admin":false' in connection.getresponse().read()
    connection.close()


def test_a_call_has_the_name_that_nginx_gave_it(alone: Nginx) -> None:
    named = _ask(alone).headers["x-request-id"]
    assert any(line.startswith(f"{named} ") for line in alone.asked())


def test_what_nginx_waits_is_longer_than_what_gateways_do() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    said = {name: float(value) for name, value in re.findall(r"^ *(\w+) (\d+)s?;", text, re.M)}
    settings = Settings()
    assert said["proxy_read_timeout"] == said["proxy_send_timeout"] > settings.read_timeout_seconds
    assert said["grpc_read_timeout"] == said["grpc_send_timeout"] == 300
    for kind in ("proxy", "grpc"):
        assert said[f"{kind}_next_upstream_tries"] == 2
        # Time to find out that nobody connects; never to ask again what was waited for in vain.
        connect_s, again_s = said[f"{kind}_connect_timeout"], said[f"{kind}_next_upstream_timeout"]
        assert connect_s < again_s < said[f"{kind}_read_timeout"]
