"""HTTP that asks for what is not there, or for too much, or that is none at all."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest

from tests.e2e.harness import PATIENCE_S, Server, infer_body
from tests.e2e.problems import assert_problem
from tests.stores import write_variant

BODY_LIMIT = 100_000
INFER = "/v2/models/echo/infer"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32")
    with Server(models, max_body_bytes=BODY_LIMIT) as server:
        yield server


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """Whatever a test does to it, afterwards it serves, and has nothing unexpected to report."""
    yield started
    assert started.infer().status_code == 200
    assert "Traceback" not in started.log()


def test_what_is_not_there(server: Server) -> None:
    assert_problem(server.infer("absent"), 404, code="unknown-model")
    assert_problem(server.infer(version="int4"), 404, code="unknown-variant")
    assert_problem(server.infer(headers={"Gearshift-Variant": "int4"}), 404, code="unknown-variant")
    for path in ("absent", "absent/ready", "absent/versions/fp32", "..%2f..%2fetc", "a%00b"):
        assert_problem(server.client.get(f"/v2/models/{path}"), 404)
    assert_problem(server.client.get("/v2/models/echo/versions/int4"), 404)
    assert_problem(server.client.get("/nothing/here"), 404, code="not-found")
    assert_problem(server.client.post("/v2/models/a%2fb/infer", json=infer_body()), 404)
    # A name that comes from a request is no metric's label.
    assert '"absent"' not in server.client.get("/metrics").text


def test_method_that_is_not_taken(server: Server) -> None:
    assert_problem(server.client.get(INFER), 405)
    assert_problem(server.client.put(INFER, json=infer_body()), 405)
    assert_problem(server.client.post("/v2/health/ready"), 405)


def test_body_over_the_limit(server: Server) -> None:
    too_much = b" " * (BODY_LIMIT + 1)
    limit = f"at most {BODY_LIMIT} bytes"
    declared = server.client.post(INFER, content=too_much)
    assert_problem(declared, 413, code="too-large", field="body", expected=limit)
    chunked = server.client.post(INFER, content=iter([b" " * 50_000] * 40))
    assert_problem(chunked, 413, code="too-large", field="body", expected=limit)
    assert_problem(server.client.post("/v2/models/echo/decide", content=too_much), 413)
    # To the byte, and no further than the body needs.
    rest = BODY_LIMIT - len(json.dumps(infer_body()).encode())
    exact = json.dumps(infer_body()).encode() + b" " * rest
    assert server.client.post(INFER, content=exact).status_code == 200


def raw(server: Server, request: bytes) -> tuple[HTTPResponse, dict[str, Any]]:
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        response = HTTPResponse(connection)
        response.begin()
        return response, json.loads(response.read())


def test_declared_length_over_the_limit_is_refused_before_the_body_comes(server: Server) -> None:
    for length in (BODY_LIMIT + 1, 10**12, 10**18):
        request = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        response, problem = raw(server, request.encode())
        assert (response.status, problem["code"]) == (413, "too-large")


def test_ten_megabytes_of_headers(server: Server) -> None:
    response, problem = raw(
        server, f"POST {INFER} HTTP/1.1\r\n".encode() + b"X-A: b\r\n" * (10 << 17) + b"\r\n"
    )
    assert response.status == problem["status"] == 431
    assert response.headers["content-type"] == "application/problem+json"
    response, problem = raw(server, b"GET /" + b"a" * (10 << 20) + b" HTTP/1.1\r\n\r\n")
    assert response.status == problem["status"] == 414


def test_bytes_in_headers_that_are_no_text(server: Server) -> None:
    body = json.dumps(infer_body()).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n".encode()
    response, problem = raw(server, head + b"Gearshift-Optimize: \xff\xfe\r\n\r\n" + body)
    assert (response.status, problem["field"]) == (400, "gearshift-optimize")
    response, _ = raw(server, head + b"Gearshift-Optimize: cost\x01\r\n\r\n" + body)
    assert response.status == 400
    response, problem = raw(server, b"\x16\x03\x01\x02\x00\x01\x00")  # TLS
    assert (response.status, problem["status"]) == (400, 400)
