"""Compressed and large bodies against a real server: inflated within limits, beside the loop."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterator

import httpx
import numpy as np
import orjson
import pytest
import zstandard

from router.card import TensorSpec
from tests.e2e.harness import Server, infer_body
from tests.e2e.problems import assert_invalid, assert_problem
from tests.stores import write_variant

INFER = "/v2/models/echo/infer"
LIMIT = 32 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32")
    free = TensorSpec(name="x", datatype="FP32", shape=(-1, -1))
    wide = TensorSpec(name="y", datatype="FP32", shape=(-1, 20000))
    write_variant(models, "wide", "fp32", inputs=(free,), outputs=(wide,), mirror=True)
    with Server(models, max_body_bytes=LIMIT) as server:
        yield server
        assert "Traceback" not in server.log()


DEFLATE = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda body: zstandard.ZstdCompressor().compress(body),
}


@pytest.mark.parametrize("coding", sorted(DEFLATE))
def test_a_body_in_each_coding(server: Server, coding: str) -> None:
    body = DEFLATE[coding](json.dumps(infer_body(rows=3)).encode())
    headers = {"Content-Encoding": coding}
    response = server.client.post(INFER, content=body, headers=headers)
    assert response.status_code == 200
    assert response.json()["outputs"][0]["shape"] == [3, 3]
    response = server.client.post("/v2/models/echo/decide", content=body, headers=headers)
    assert response.status_code == 200


def test_the_json_length_is_that_of_the_inflated_body(server: Server) -> None:
    one = {"name": "image", "datatype": "FP32", "shape": [2, 4]}
    text = json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": 32}}]}).encode()
    headers = {"Content-Encoding": "gzip", "Inference-Header-Content-Length": str(len(text))}
    response = server.client.post(INFER, content=gzip.compress(text + bytes(32)), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("coding", sorted(DEFLATE))
def test_a_bomb_is_too_large(server: Server, coding: str) -> None:
    bomb = DEFLATE[coding](bytes(2 * LIMIT))
    response = server.client.post(INFER, content=bomb, headers={"Content-Encoding": coding})
    assert_problem(response, 413, code="too-large", field="body")


def test_bodies_that_are_not_in_their_coding(server: Server) -> None:
    body = gzip.compress(json.dumps(infer_body()).encode())
    for coding, content, field in (
        ("gzip", body[:-4], "body"), ("zstd", body, "body"), ("deflate", b"", "body"),
        ("br", body, "Content-Encoding"), ("gzip, gzip", body, "Content-Encoding"),
    ):  # fmt: skip
        response = server.client.post(INFER, content=content, headers={"Content-Encoding": coding})
        assert_invalid(response, field, "")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_large_answer_in_the_coding_that_is_asked_for(server: Server, coding: str) -> None:
    one = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}

    def ask(accept: str) -> httpx.Response:
        headers = {"Accept-Encoding": accept}
        return server.client.post("/v2/models/wide/infer", json={"inputs": [one]}, headers=headers)

    plain, coded = ask("identity"), ask(coding)
    assert "content-encoding" not in plain.headers
    assert coded.headers["content-encoding"] == coding
    assert coded.headers["vary"] == "accept-encoding"
    assert int(coded.headers["content-length"]) * 10 < int(plain.headers["content-length"])
    assert coded.json()["outputs"] == plain.json()["outputs"]
    small = server.client.post(INFER, json=infer_body(), headers={"Accept-Encoding": coding})
    assert "content-encoding" not in small.headers


def test_a_large_json_body_does_not_hold_up_the_others(server: Server) -> None:
    values = np.full((100, 20000), 0.123456789).tolist()
    one = {"name": "x", "datatype": "FP32", "shape": [100, 20000], "data": values}
    body = orjson.dumps({"inputs": [one], "outputs": [{"name": "y"}]})
    assert len(body) > 20 << 20
    started, answers = threading.Event(), []

    def send() -> None:
        with httpx.Client(base_url=f"http://{server.address}", timeout=30) as client:
            started.set()
            answers.append(client.post("/v2/models/wide/infer", content=body))

    thread = threading.Thread(target=send)
    thread.start()
    started.wait()
    asked = 0
    while thread.is_alive():
        assert server.client.get("/v2/health/live").status_code == 200
        asked += 1
    thread.join()
    assert answers[0].status_code == 200, answers[0].text
    data = answers[0].json()["outputs"][0]["data"]
    assert len(data) == 100 * 20000
    assert asked > 10


def test_the_deadline_of_a_large_body_counts_while_it_is_read(server: Server) -> None:
    values = [0.123456789] * 2_000_000
    one = {"name": "x", "datatype": "FP32", "shape": [100, 20000], "data": values}
    body = orjson.dumps({"inputs": [one]})
    begun_s = time.monotonic()
    headers = {"Gearshift-Max-Latency-Ms": "40"}
    response = server.client.post("/v2/models/wide/infer", content=body, headers=headers)
    assert_problem(response, 504, code="deadline-passed")
    assert time.monotonic() - begun_s < 20
