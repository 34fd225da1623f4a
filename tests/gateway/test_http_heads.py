"""Requests with a head that came before are answered as the first one was, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.asgi import ANSWER, KNOWN, RECEIVED_S
from gateway.http.heads import Heads
from gateway.http.limits import LimitedHttpProtocol
from tests.gateway.http_serving import served

PATIENCE_S = 60.0
WANTED = (
    *("type", "asgi", "http_version", "server", "client", "scheme", "root_path", "method"),
    *("path", "raw_path", "query_string", "headers"),
)


async def app(scope: Any, receive: Any, _: object) -> None:
    """Answers with its scope, its body, and whether its head came before."""
    body, more = b"", True
    while more:
        event = await receive()
        assert event["type"] == "http.request"
        body, more = body + event["body"], event["more_body"]
    told = {name: repr(scope[name]) for name in WANTED}
    if body == b"wait.":
        await asyncio.sleep(0.3)
    late_s = time.monotonic() - scope[RECEIVED_S]
    told |= {"body": body.decode(), "again": KNOWN in scope, "in time": 0 <= late_s < 5}
    answer = json.dumps(told).encode()
    headers = [(b"content-length", b"%d" % len(answer))]
    status = 403 if scope["path"] == "/forbidden" else 200
    assert await scope[ANSWER](status, headers, answer)
    assert (await receive())["type"] == "http.disconnect"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(app, 60.0) as port:
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


HALF = b"POST /half HTTP/1.1\r\nHost: a\r\nX-Junk: "
REST = b"Content-Length: 4\r\n\r\nbody"


def raw_answers(connection: socket.socket, count: int) -> list[dict[str, Any]]:
    """So many answers, which may come together."""
    got = b""
    while True:
        parts = [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 200 ")[1:]]
        if len(parts) == count and parts[-1].endswith(b"}"):
            return [json.loads(part) for part in parts]
        more = connection.recv(1 << 16)
        assert more, got
        got += more


def refused(port: int, packet: bytes) -> bool:
    """Whether a packet that is no request is refused as such."""
    with connect(port) as connection:
        connection.sendall(packet)
        response = HTTPResponse(connection)
        response.begin()
        return response.status == 400


def in_turn(connection: socket.socket, *packets: bytes) -> None:
    """Send packets that are read one by one."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for packet in packets:
        connection.sendall(packet)
        time.sleep(0.05)  # nothing tells when the other side has read


def test_the_rest_of_a_pipelined_head_is_no_head(port: int) -> None:
    with connect(port) as connection:
        head = b"POST /second HTTP/1.1\r\nHost: a\r\nAuthorization: mine\r\n"
        in_turn(connection, post("/first", b"first") + head, REST)
        assert [each["body"] for each in raw_answers(connection, 2)] == ["first", "body"]
    assert refused(port, REST)


def test_a_head_in_two_packets_is_not_kept_by_what_the_first_one_began_with(port: int) -> None:
    whole = post("/two", b"x" * 40, "Authorization: mine")
    first = 40 + 3
    with connect(port) as connection:
        in_turn(connection, whole[:first], whole[first:])
        assert raw_answers(connection, 1)[0]["body"] == "x" * 40
    assert refused(port, b"POS" + b"x" * 40)
    with connect(port) as connection:
        in_turn(connection, b"\r\n\r\n" + whole[:36], whole[36:])
        assert raw_answers(connection, 1)[0]["body"] == "x" * 40
    assert refused(port, b"\r\n\r\n" + b"x" * 40)


def test_a_known_request_within_a_header_is_part_of_that_header(port: int) -> None:
    with connect(port) as connection:
        assert ask(connection, post("/known", b"known"))["body"] == "known"
    with connect(port) as connection:
        in_turn(connection, post("/before", b"first") + HALF, post("/known", b"known"))
        first, second = raw_answers(connection, 2)
        assert (first["path"], second["path"]) == ("'/before'", "'/half'")


def test_heads_of_who_is_turned_away_are_not_kept(port: int) -> None:
    with connect(port) as connection:
        for _ in range(2):
            connection.sendall(post("/forbidden", b"first"))
            response = HTTPResponse(connection)
            response.begin()
            assert json.loads(response.read())["again"] is False


def test_who_waits_for_an_answer_gets_it_before_the_next_one(port: int) -> None:
    with connect(port) as connection:
        ask(connection, post("/slow", b"zero."))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        in_turn(connection, post("/slow", b"wait."), post("/slow", b"next."))
        assert [each["body"] for each in raw_answers(connection, 2)] == ["wait.", "next."]


def test_a_server_that_ends_says_so_to_known_heads_as_well() -> None:
    with served(app, 60.0) as port, connect(port) as connection:
        ask(connection, post("/leaving", b"first"))
        LimitedHttpProtocol.leaving = True
        try:
            connection.sendall(post("/leaving", b"again"))
            response = HTTPResponse(connection)
            response.begin()
            assert json.loads(response.read())["again"] is True
            assert response.headers["connection"] == "close"
        finally:
            LimitedHttpProtocol.leaving = False


def test_a_known_head_stops_the_time_for_a_first_request() -> None:
    with served(app, 0.2) as port:
        with connect(port) as connection:
            ask(connection, post("/timed", b"first"))
        with connect(port) as connection:
            assert ask(connection, post("/timed", b"again"))["again"] is True
            time.sleep(0.4)  # twice the limit: only time can show that it does not fire
            assert ask(connection, post("/timed", b"again"))["again"] is True


def test_what_is_kept_is_bounded() -> None:
    heads = Heads()
    scope = dict.fromkeys(WANTED, "") | {"headers": [(b"content-length", b"0")]}
    packets = [post(f"/{number}", b"") for number in range(1000)]
    for packet in packets:
        heads.keep(packet, 0, scope)
    assert 0 < sum(heads.find(packet) is not None for packet in packets) <= 256


@pytest.mark.parametrize("length", [b"1", b"-1"])
def test_a_body_of_another_length_is_not_this_head_s(length: bytes) -> None:
    heads = Heads()
    scope = dict.fromkeys(WANTED, "") | {"headers": [(b"content-length", length)]}
    packet = post("/", b"")
    heads.keep(packet, 0, scope)
    assert heads.find(packet) is None
