"""The limits on a request's head, over real sockets, in front of the smallest app there is."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

from gateway.http.asgi import RECEIVED_S
from gateway.http.connections import PROGRESS_BYTES
from tests.gateway.http_serving import LIMIT, served

PATIENCE_S = 60.0


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body's length and by how long ago its last byte came."""
    length, more = 0, True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        length, more = length + len(event["body"]), event["more_body"]
    answer = {"length": length, "since_s": time.monotonic() - scope[RECEIVED_S]}
    body = json.dumps(answer).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(app, read_timeout_seconds=60.0) as port:
        yield port


def connect(port: int) -> socket.socket:
    # An answer that does not come fails the test, and does not hang it.
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answer(connection: socket.socket) -> tuple[HTTPResponse, bytes]:
    response = HTTPResponse(connection)
    response.begin()
    return response, response.read()


def refused(connection: socket.socket) -> dict[str, Any]:
    """The problem that the server answers with, after which it closes."""
    response, body = answer(connection)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["connection"] == "close"
    problem: dict[str, Any] = json.loads(body)
    assert problem["status"] == response.status
    assert problem["error"] == problem["detail"]
    assert connection.recv(1) == b""
    return problem


def head_of(length: int) -> bytes:
    """A whole head of exactly that many bytes, of several headers."""
    start, end = b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n"
    line = b"X-Filler: " + b"f" * 88 + b"\r\n"
    full, rest = divmod(length - len(start) - len(end), len(line))
    last = b"" if not rest else b"Y: " + b"f" * (rest + len(line) - 5) + b"\r\n"
    head = start + line * (full - bool(rest)) + last + end
    assert len(head) == length
    return head


def test_head_of_exactly_the_limit_passes_and_one_byte_more_is_refused(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(head_of(LIMIT))
        assert answer(connection)[0].status == 200
        # Neither head counts towards the next one's on the same connection.
        connection.sendall(head_of(LIMIT))
        assert answer(connection)[0].status == 200
        connection.sendall(head_of(LIMIT + 1))
        assert refused(connection)["status"] == 431


def test_head_that_comes_byte_by_byte_is_counted_as_a_whole(port: int) -> None:
    with connect(port) as connection:
        for byte in head_of(LIMIT):
            connection.send(bytes([byte]))
        assert answer(connection)[0].status == 200
    with connect(port) as connection:
        for byte in head_of(LIMIT + 1):
            connection.send(bytes([byte]))
        assert refused(connection)["status"] == 431


def test_ten_megabytes_of_headers_are_refused_while_they_are_sent(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * (10 << 17))
        problem = refused(connection)
    assert problem["status"] == 431
    assert str(LIMIT) in problem["detail"]


def test_header_line_that_never_ends(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * (10 << 20))
        assert refused(connection)["status"] == 431


@pytest.mark.parametrize("whole", [True, False])
def test_path_that_is_too_long(port: int, whole: bool) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n" * whole)
        assert refused(connection)["status"] == 414


def test_blank_lines_before_a_request_count(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"\r\n" * LIMIT)
        assert refused(connection)["status"] == 431


def test_trailers_of_a_chunked_body_count(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"3\r\nabc\r\n0\r\n")
        connection.sendall(b"X-A: b\r\n" * (1 << 17))
        assert refused(connection)["status"] == 431


def test_a_chunked_body_s_framing_does_not_add_up(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(LIMIT):
            connection.send(b"1\r\n")
            connection.send(b"a\r\n")
        connection.sendall(b"0\r\n\r\n")
        response, body = answer(connection)
    assert response.status == 200
    assert json.loads(body)["length"] == LIMIT


def test_bodies_are_not_limited_here(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    for length in (0, LIMIT, 5 << 20):
        connection.request("POST", "/", body=b"x" * length)
        response = connection.getresponse()
        assert json.loads(response.read())["length"] == length
    connection.close()


def test_pipelined_requests_are_answered_before_the_one_that_is_refused(port: int) -> None:
    with connect(port) as connection:
        endless = b"GET / HTTP/1.1\r\nX-A: " + b"a" * 3 * LIMIT
        connection.sendall(head_of(200) + head_of(300) + endless)
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http(port: int, garbage: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(garbage)
        assert refused(connection)["status"] == 400


def test_request_that_does_not_arrive_in_time() -> None:
    with served(app, read_timeout_seconds=0.2) as port:
        with connect(port) as head, connect(port) as body, connect(port) as silent:
            head.sendall(b"GET / HTTP/1.1\r\nHost:")
            body.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
            assert refused(head)["status"] == 408
            assert refused(body)["status"] == 408
            assert silent.recv(1) == b""
        # A connection that was kept after an answer is no request in progress.
        with connect(port) as kept:
            kept.sendall(head_of(200))
            assert answer(kept)[0].status == 200
            time.sleep(0.4)  # twice the limit: only time can show that it does not fire
            kept.sendall(head_of(200))
            assert answer(kept)[0].status == 200


def test_moment_of_the_last_byte(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na")
        time.sleep(0.2)  # the interval that must not be counted
        connection.sendall(b"b")
        _, body = answer(connection)
    assert 0 <= json.loads(body)["since_s"] < 0.2


@pytest.mark.parametrize("at", [10, 60, 95, 150, 1000])
def test_upgrade_to_what_is_not_known_is_answered_as_a_plain_request(port: int, at: int) -> None:
    """Java's HTTP client asks for h2c with its first request, and sends the body with it."""
    request = (
        b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: a\r\n"
        b"HTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
    )
    with connect(port) as connection:
        for _ in range(2):
            connection.sendall(request[:at])
            connection.sendall(request[at:])
            assert json.loads(answer(connection)[1])["length"] == 3


def test_a_large_body_may_take_its_time_while_it_gets_on() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    piece, pieces, timeout_s = b"x" * PROGRESS_BYTES, 9, 0.4
    with served(app, timeout_s, large_bodies=True) as port:
        with connect(port) as connection:
            connection.sendall(head % (len(piece) * pieces))
            for _ in range(pieces):  # more than twice the time for a request
                time.sleep(timeout_s / 4)
                connection.sendall(piece)
            assert json.loads(answer(connection)[1])["length"] == len(piece) * pieces
        with connect(port) as connection:  # one that does not is refused as ever
            connection.sendall(head % len(piece) + b"x")
            assert refused(connection)["status"] == 408
