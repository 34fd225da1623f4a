"""Callers that leave: nothing is computed for who is gone, and nobody else notices."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.gate import Gate
from tests.e2e.harness import PATIENCE_S, Server, infer_body, until
from tests.stores import write_variant


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32", **gate.echo)
    with Server(models, max_batch=8) as server:
        yield server


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def caller(server: Server, missing: int = 0) -> socket.socket:
    """Somebody who has sent a request, less its last bytes, and does not read the answer."""
    content = json.dumps(infer_body()).encode()
    host, port = server.address.split(":")
    connection = socket.create_connection((host, int(port)))
    head = (
        f"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content[: len(content) - missing])
    return connection


def leave(connection: socket.socket, *, abruptly: bool) -> None:
    if abruptly:  # as a process that is killed, whose connection is reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def gone(server: Server) -> float:
    return server.metric("gearshift_requests_total", outcome="caller-left")


@pytest.mark.parametrize("abruptly", [True, False])
def test_who_leaves_the_queue_is_never_computed(
    server: Server, gate: Gate, pool: ThreadPoolExecutor, abruptly: bool
) -> None:
    rows, left = server.rows(), gone(server)
    with gate.shut():
        running = pool.submit(server.infer)
        server.await_busy()
        leaving = caller(server)
        server.await_busy(queued=1)
        staying = pool.submit(server.infer)
        server.await_busy(queued=2)
        leave(leaving, abruptly=abruptly)
        server.await_busy(queued=1)
    assert [one.result().status_code for one in (running, staying)] == [200, 200]
    server.await_idle()
    assert server.rows() == rows + 2
    assert gone(server) == left + 1


@pytest.mark.parametrize("abruptly", [True, False])
def test_who_leaves_mid_batch_takes_nobody_along(
    server: Server, gate: Gate, pool: ThreadPoolExecutor, abruptly: bool
) -> None:
    rows, batches, left = server.rows(), server.batches(), gone(server)
    with gate.shut():
        running = pool.submit(server.infer)
        server.await_busy()
        leaving = caller(server)
        server.await_busy(queued=1)
        together = [pool.submit(server.infer) for _ in range(3)]
        server.await_busy(queued=4)
        gate.next()
        assert running.result().status_code == 200
        server.await_busy(queued=0)  # all four ride in one batch
        leave(leaving, abruptly=abruptly)
        until(lambda: gone(server) == left + 1, "it is noticed that the caller left")
    assert [one.result().status_code for one in together] == [200, 200, 200]
    server.await_idle()
    assert server.batches() == batches + 2
    assert server.rows() == rows + 5


def test_who_leaves_before_the_end_of_the_request(server: Server) -> None:
    rows, left = server.rows(), gone(server)
    leave(caller(server, missing=5), abruptly=False)
    until(lambda: gone(server) == left + 1, "it is noticed that the caller left")
    assert server.infer().status_code == 200
    assert server.rows() == rows + 1


def test_many_leave_at_once_and_nothing_leaks(
    server: Server, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    rows, left = server.rows(), gone(server)
    with gate.shut():
        running = pool.submit(server.infer)
        server.await_busy()
        leaving = [caller(server) for _ in range(20)]
        server.await_busy(queued=20)
        for number, connection in enumerate(leaving):
            leave(connection, abruptly=number % 2 == 0)
        until(lambda: gone(server) == left + 20, "it is noticed that all of them left")
        assert server.metric("gearshift_queued_requests") == 0
    assert running.result().status_code == 200
    server.await_idle()
    assert server.rows() == rows + 1
    assert "Traceback" not in server.log()


def test_client_that_times_out_by_itself(server: Server, gate: Gate) -> None:
    left = gone(server)
    limits = httpx.Timeout(PATIENCE_S, read=0.05)
    with gate.shut():
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/v2/models/echo/infer", json=infer_body(), timeout=limits)
        until(lambda: gone(server) == left + 1, "it is noticed that the caller left")
    server.await_idle()
    assert server.infer().status_code == 200
