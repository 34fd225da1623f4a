"""Connections over real sockets: too many of them, idle ones, and callers who do not read."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

import uvicorn

from gateway.http.limits import limited
from gateway.processes import open_files
from tests.e2e.harness import until

PATIENCE_S = 60.0
LARGE_BYTES = 8 << 20
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with as many bytes as the path says."""
    del receive
    body = b"x" * int(scope["path"].strip("/") or 2)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Serving:
    """A server in a thread."""

    def __init__(self, keep_alive_s: float = 60, **limits: Any) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            http=limited(4096, 60.0, **limits),
            loop="uvloop",
            lifespan="off",
            ws="none",
            log_level="error",
            timeout_keep_alive=keep_alive_s,  # type: ignore[arg-type]
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(PATIENCE_S)
        connection.connect(self.listener.getsockname())
        return connection


@contextmanager
def serving(**limits: Any) -> Iterator[Serving]:
    found = Serving(**limits)
    found.thread.start()
    try:
        yield found
    finally:
        found.server.should_exit = True
        found.thread.join(PATIENCE_S)
        assert not found.thread.is_alive()
        found.listener.close()


def answer(connection: socket.socket) -> tuple[HTTPResponse, bytes]:
    response = HTTPResponse(connection)
    response.begin()
    return response, response.read()


def closed(connection: socket.socket) -> bool:
    """Whether the server has ended the connection, once all that it sent is read."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    return True


def test_a_connection_too_many_is_told_and_takes_no_place() -> None:
    with serving(max_connections=2) as server:
        kept = [server.connect() for _ in range(2)]
        for one in kept:
            one.sendall(REQUEST)
            assert answer(one)[0].status == 200
        with server.connect() as third:
            response, body = answer(third)
            assert response.status == 503
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["connection"] == "close"
            assert response.headers["retry-after"] == "1"
            problem = json.loads(body)
            assert problem["detail"] == "2 connections are open, the most there may be"
            assert third.recv(1) == b""
        # Those that were there are served on, and one that leaves makes room.
        kept[0].sendall(REQUEST)
        assert answer(kept[0])[0].status == 200
        kept.pop().close()
        until(lambda: server.connections == 1, "the others are gone")
        with server.connect() as next_one:
            next_one.sendall(REQUEST)
            assert answer(next_one)[0].status == 200
        kept[0].close()


def test_an_idle_connection_is_closed_after_its_time_and_not_before() -> None:
    with serving(keep_alive_s=0.3) as server, server.connect() as connection:
        connection.sendall(REQUEST)
        answer(connection)
        began_s = time.monotonic()
        assert closed(connection)
        assert time.monotonic() - began_s >= 0.2


def test_who_does_not_read_a_large_answer_is_cut_off() -> None:
    with serving(write_timeout_seconds=0.2) as server, server.connect(4096) as connection:
        connection.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % LARGE_BYTES)
        until(lambda: server.connections == 1, "the answer is on its way")
        until(lambda: server.connections == 0, "the connection is gone")


def test_who_reads_slowly_but_reads_gets_all_of_it() -> None:
    with serving(write_timeout_seconds=0.5) as server, server.connect(1 << 16) as connection:
        connection.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % LARGE_BYTES)
        response = HTTPResponse(connection)
        response.begin()
        size, began_s = 0, time.monotonic()
        while piece := response.read(LARGE_BYTES // 12):
            size += len(piece)
            time.sleep(0.1)  # the pace is what is tested: slower than the limit in all
        assert size == LARGE_BYTES
        assert time.monotonic() - began_s > 2 * 0.5


def test_who_leaves_the_last_answer_of_a_connection_unread_is_let_go() -> None:
    with serving(write_timeout_seconds=0.3) as server:
        connection = server.connect(4096)
        connection.sendall(b"GET /4000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        until(lambda: server.connections == 1, "it is answered")
        until(lambda: server.connections == 0, "the connection is gone")
        connection.close()


def test_a_stop_does_not_wait_for_who_does_not_read() -> None:
    with serving(write_timeout_seconds=0.3) as server:
        connection = server.connect(4096)
        connection.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % LARGE_BYTES)
        until(lambda: server.connections == 1, "the answer is on its way")
    connection.close()


def test_as_many_connections_as_files_leave_room_for() -> None:
    """HTTP and gRPC share them, so that neither takes the other's."""
    for files, http, grpc in ((20_000, 14_616, 4_872), (1_500, 741, 247), (100, 48, 16)):
        mine = open_files.connections(files, beside_grpc=True)
        assert (mine, open_files.grpc_connections(files)) == (http, grpc)
        assert open_files.connections(files, beside_grpc=False) == http + grpc
    assert open_files.connections(-1, beside_grpc=True) > open_files.grpc_connections(-1) > 100_000
    assert open_files.raise_limit() == open_files.raise_limit() > 0
