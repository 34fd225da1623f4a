"""Requests with a head that came before are answered as the first one was, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.asgi import KNOWN, RECEIVED_S
from gateway.http.heads import Heads
from gateway.http.limits import limited

PATIENCE_S = 60.0
WANTED = (
    *("type", "asgi", "http_version", "server", "client", "scheme", "root_path", "method"),
    *("path", "raw_path", "query_string", "headers"),
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with its scope, its body, and whether its head came before."""
    body, more = b"", True
    while more:
        event = await receive()
        assert event["type"] == "http.request"
        body, more = body + event["body"], event["more_body"]
    told = {name: repr(scope[name]) for name in WANTED}
    told |= {"body": body.decode(), "again": KNOWN in scope, "since": RECEIVED_S in scope}
    answer = json.dumps(told).encode()
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
    assert (await receive())["type"] == "http.disconnect"


@contextmanager
def serving(**limits: Any) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=limited(4096, 60.0, **limits),
        loop="uvloop",
        lifespan="off",
        ws="none",
        log_level="error",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def ask(connection: socket.socket, *packets: bytes) -> dict[str, Any]:
    for packet in packets:
        connection.sendall(packet)
    response = HTTPResponse(connection)
    response.begin()
    assert response.status == 200
    told: dict[str, Any] = json.loads(response.read())
    return told


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def test_the_next_request_is_its_own_in_all_but_its_head(port: int) -> None:
    with connect(port) as one, connect(port) as other:
        first = ask(one, post("/next?a=b", b"first"))
        second = ask(one, post("/next?a=b", b"again"))
        elsewhere = ask(other, post("/next?a=b", b"third"))
        assert (first.pop("again"), second.pop("again"), elsewhere.pop("again")) == (
            *(False, True),
            True,
        )
        assert [each.pop("body") for each in (first, second, elsewhere)] == [
            *("first", "again"),
            "third",
        ]
        assert first == second
        assert elsewhere.pop("client") == repr(other.getsockname())
        assert first.pop("client") == repr(one.getsockname())
        assert first == elsewhere


_TOKENS = st.text("abcXYZ-0", min_size=1, max_size=8)
_VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"))


@settings(max_examples=40, deadline=None)
@given(
    path=st.text("abc/%2F-", max_size=8).map(lambda rest: "/" + rest),
    headers=st.dictionaries(_TOKENS.map(lambda name: "X-" + name), _VALUES, max_size=4),
    bodies=st.lists(st.binary(min_size=3, max_size=3), min_size=2, max_size=3),
)
def test_any_head_says_the_same_again(
    port: int, path: str, headers: dict[str, str], bodies: list[bytes]
) -> None:
    stated = [f"{name}: {value}" for name, value in headers.items()]
    with connect(port) as connection:
        answers = []
        for body in bodies:
            text = body.hex().encode()
            answers.append(ask(connection, post(path, text, *stated)))
            assert answers[-1].pop("body") == text.decode()
        assert [answer.pop("again") for answer in answers[1:]] == [True] * (len(bodies) - 1)
        answers[0].pop("again")
        assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize(
    "header",
    [
        "X-Request-Id: mine",
        "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Expect: 100-continue",
        "Upgrade: h2c",
        "X-Long: " + "a" * 2048,
    ],
)
def test_heads_that_come_once_are_not_kept(port: int, header: str) -> None:
    with connect(port) as connection:
        for body in (b"first", b"again"):
            packet = post("/once", body, header)
            connection.sendall(packet)
            response = HTTPResponse(connection)
            response.begin()
            assert json.loads(response.read())["again"] is False


def test_a_request_in_pieces_is_read_as_ever(port: int) -> None:
    with connect(port) as connection:
        assert ask(connection, post("/pieces", b"whole"))["again"] is False
        whole = post("/pieces", b"parts")
        told = ask(connection, whole[:-3], whole[-3:])
        assert told["body"] == "parts"
        assert ask(connection, post("/pieces", b"whole"))["again"] is True


def test_pipelined_requests_are_answered_in_their_order(port: int) -> None:
    with connect(port) as connection:
        ask(connection, post("/row", b"zero."))
        connection.sendall(post("/row", b"one..") + post("/row", b"two.."))
        connection.sendall(post("/row", b"three"))
        got = b""
        while got.count(b'"body"') < 3 or not got.endswith(b"}"):
            got += connection.recv(1 << 16)
    bodies = [part.split(b'"')[1].decode() for part in got.split(b'"body"')[1:]]
    assert bodies == ["one..", "two..", "three"]


def test_a_connection_that_is_the_last_to_its_client_is_closed(port: int) -> None:
    for _ in range(2):
        with connect(port) as connection:
            assert ask(connection, post("/last", b"close", "Connection: close"))["again"] is False
            assert connection.recv(1) == b""


def test_what_is_kept_is_bounded() -> None:
    heads = Heads()
    scope = dict.fromkeys(WANTED, "") | {"headers": [(b"content-length", b"0")]}
    packets = [post(f"/{number}", b"") for number in range(1000)]
    for packet in packets:
        heads.keep(packet, scope)
    assert 0 < sum(heads.find(packet) is not None for packet in packets) <= 256
