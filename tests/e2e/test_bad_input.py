"""Requests that make no sense: the answer says what was wrong, and the server goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from router.card import TensorSpec
from tests.e2e.harness import Server, infer_body
from tests.e2e.problems import assert_invalid
from tests.stores import IMAGE, write_variant

INFER = "/v2/models/echo/infer"
MAX_LATENCY = "Gearshift-Max-Latency-Ms"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32", accuracy=0.95)
    write_variant(models, "echo", "small", accuracy=0.90)
    count = TensorSpec(name="count", datatype="INT8", shape=(-1, 1))
    write_variant(models, "two", "fp32", inputs=(IMAGE, count))
    with Server(models) as server:
        yield server


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """Whatever a test does to it, afterwards it serves, and has nothing unexpected to report."""
    yield started
    assert started.infer().status_code == 200
    assert "Traceback" not in started.log()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (MAX_LATENCY, "-1"), (MAX_LATENCY, "0"), (MAX_LATENCY, "nan"), (MAX_LATENCY, "inf"),
        (MAX_LATENCY, "1e999"), (MAX_LATENCY, "40ms"), (MAX_LATENCY, ""), (MAX_LATENCY, "0x10"),
        ("Gearshift-Min-Accuracy", "-0.1"), ("Gearshift-Min-Accuracy", "1.01"),
        ("Gearshift-Min-Accuracy", "NaN"), ("Gearshift-Min-Accuracy", "101%"),
        ("Gearshift-Max-Cost-Usd-Per-Million", "-1"), ("Gearshift-Max-Cost-Usd-Per-Million", "nan"),
        ("Gearshift-Optimize", "speed"), ("Gearshift-Priority", "urgent"),
        ("Gearshift-Relax", "everything"), ("Gearshift-Relax", "latency,latency"),
        ("Gearshift-Variant", "../fp32"), ("Gearshift-Explain", "yes"),
        ("Gearshift-Min-Acuracy", "0.9"), ("grpc-timeout", "1"), ("grpc-timeout", "123456789m"),
        ("x-envoy-expected-rq-timeout-ms", "soon"),
    ],
)  # fmt: skip
def test_header_value_that_makes_no_sense(server: Server, name: str, value: str) -> None:
    assert_invalid(server.infer(headers={name: value}), name.lower(), value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_latency_ms", -1), ("max_latency_ms", True), ("max_latency_ms", [1]),
        ("min_accuracy", 1.5), ("max_cost_usd_per_million", "free"), ("timeout", -1),
        ("timeout", 1.5), ("optimize", 3), ("relax", ["latency"]), ("variant", 7),
    ],
)  # fmt: skip
def test_parameter_that_makes_no_sense(server: Server, name: str, value: object) -> None:
    assert_invalid(server.infer(parameters={name: value}), f"parameters.{name}", str(value))


def test_a_constraint_that_is_misspelt_names_the_one_that_was_meant(server: Server) -> None:
    """In a header, in the parameters, and in the body of a dry run."""
    body = infer_body() | {"parameters": {"max_latency": 40}}
    dry = server.client.post("/v2/models/echo/decide", json=body)
    for response in (server.infer(parameters={"max_latency": 40}), dry):
        assert_invalid(response, "parameters.max_latency", "40")
        assert response.json()["expected"] == "a constraint that there is (max_latency_ms)"
    response = server.infer(headers={"Gearshift-Max-Latency": "40"})
    known = "a constraint that there is (gearshift-max-latency-ms)"
    assert response.json()["expected"] == known


def test_keys_of_other_extensions_are_not_read(server: Server) -> None:
    foreign = {"sequence_id": 7, "sequence_start": True, "content_type": "np", "max_tokens": 16}
    response = server.infer(parameters={**foreign, "binary_data_output": False, "priority": 1})
    assert response.status_code == 200, response.text


def test_two_sources_that_disagree(server: Server) -> None:
    url = f"http://{server.address}{INFER}"
    twice = [(MAX_LATENCY, "40"), (MAX_LATENCY, "50")]
    assert_invalid(httpx.post(url, json=infer_body(), headers=twice), MAX_LATENCY.lower(), "50")
    response = server.infer(headers={MAX_LATENCY: "40"}, parameters={"max_latency_ms": 50})
    assert_invalid(response, "parameters.max_latency_ms", "50")
    response = server.infer(version="fp32", headers={"Gearshift-Variant": "small"})
    assert_invalid(response, "versions/fp32", "fp32")


def tensor(**changes: Any) -> dict[str, Any]:
    one = {"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]} | changes
    return {key: value for key, value in one.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "field", "received"),
    [
        ({"datatype": "FP64"}, "datatype", "FP64"), ({"datatype": "BYTES"}, "datatype", "BYTES"),
        ({"datatype": None}, "datatype", "None"), ({"name": "picture"}, "name", "picture"),
        ({"name": 5}, "name", "5"), ({"shape": [1, 5]}, "shape", "[1, 5]"),
        ({"shape": [4]}, "shape", "[4]"), ({"shape": [-1, 4]}, "shape", "[-1, 4]"),
        ({"shape": [0, 4], "data": []}, "shape", "[0, 4]"), ({"shape": "1,4"}, "shape", "1,4"),
        ({"shape": [1.0, 4]}, "shape", "1.0"), ({"shape": [True, 4]}, "shape", "True"),
        ({"shape": [10**15, 4]}, "data", "[4]"), ({"data": [0, 1, 2]}, "data", "[3]"),
        ({"data": [[0, 1], [2, 3]]}, "data", "[2, 2]"), ({"data": "abcd"}, "data", ""),
        ({"data": None}, "data", ""), ({"data": [0, 1, 2, "x"]}, "data", "x"),
        ({"data": [0, 1, 2, None]}, "data", "nothing"), ({"data": [0, 1, 2, True]}, "data", "True"),
        ({"data": [[0, 1], 2, 3]}, "data", ""), ({"data": [0, 1, 2, 1e300]}, "data", ""),
    ],
)  # fmt: skip
def test_tensor_that_does_not_fit(
    server: Server, changes: dict[str, Any], field: str, received: str
) -> None:
    response = server.client.post(INFER, json={"inputs": [tensor(**changes)]})
    assert_invalid(response, f"inputs[0].{field}", received)


@pytest.mark.parametrize(
    ("model", "inputs", "field"),
    [
        ("echo", None, "inputs"), ("echo", [], "inputs"), ("echo", {}, "inputs"),
        ("echo", ["image"], "inputs[0]"), ("echo", [tensor(), tensor()], "inputs[1].name"),
        ("two", [tensor()], "inputs"),
        ("two", [tensor(), tensor(name="count", datatype="INT8", shape=[2, 1], data=[1, 2])],
         "inputs[1].shape"),
        ("two", [tensor(), tensor(name="count", datatype="INT8", shape=[1, 1], data=[128])],
         "inputs[1].data"),
        ("two", [tensor(), tensor(name="count", datatype="INT8", shape=[1, 1], data=[1.5])],
         "inputs[1].data"),
    ],
)  # fmt: skip
def test_inputs_that_are_not_the_model_s(
    server: Server, model: str, inputs: object, field: str
) -> None:
    response = server.client.post(f"/v2/models/{model}/infer", json={"inputs": inputs})
    assert_invalid(response, field, "")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"), (b"not json", "body"), (b"[]", "body"), (b"null", "body"), (b"{", "body"),
        (b'{"inputs": "\xff\xfe"}', "body"), (b'{"id": "\xed\xa0\x80"}', "body"),
        ("{}".encode("utf-16"), "body"), (b"[" * 90_000, "body"), (b"\x00" * 100, "body"),
        (b'{"inputs": [NaN]}', "body"), (b'{"parameters": []}', "parameters"),
        (b'{"id": 7}', "id"), (b'{"input": []}', "body"),
        (json.dumps(infer_body(outputs=[{"name": "odds"}])).encode(), "outputs[0].name"),
        (json.dumps(infer_body(outputs="logits")).encode(), "outputs"),
    ],
)  # fmt: skip
def test_body_that_is_no_request(server: Server, body: bytes, field: str) -> None:
    assert_invalid(server.client.post(INFER, content=body), field, "")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"[]", "body"), (b"\xff\xfe", "body"), (b'{"parameters": 1}', "parameters"),
        (b'{"parameters": {"min_accuracy": 2}}', "parameters.min_accuracy"),
        (b'{"parmeters": {"min_accuracy": 0.99}}', "body"),
        (b'{"rows": 0}', "rows"), (b'{"rows": true}', "rows"), (b'{"rows": "many"}', "rows"),
        (b'{"inputs": [{"shape": []}]}', "inputs[0].shape"), (b'{"inputs": 3}', "inputs[0].shape"),
    ],
)  # fmt: skip
def test_body_that_nothing_can_be_decided_for(server: Server, body: bytes, field: str) -> None:
    response = server.client.post("/v2/models/echo/decide", content=body)
    assert_invalid(response, field, "")


@pytest.mark.parametrize(
    ("size", "sent", "json_length", "field"),
    [
        (16, 15, None, "inputs[0].parameters.binary_data_size"),
        (12, 12, None, "inputs[0].parameters.binary_data_size"),
        (-16, 16, None, "inputs[0].parameters.binary_data_size"),
        ("16", 16, None, "inputs[0].parameters.binary_data_size"),
        (10**18, 16, None, "inputs[0].parameters.binary_data_size"),
        (16, 17, None, "body"),
        (16, 16, "999999", "Inference-Header-Content-Length"),
        (16, 16, "-1", "Inference-Header-Content-Length"),
        (16, 16, "ten", "Inference-Header-Content-Length"),
        (16, 16, "10", "body"),
    ],
)
def test_byte_counts_that_are_wrong(
    server: Server, size: object, sent: int, json_length: str | None, field: str
) -> None:
    described = tensor(data=None, parameters={"binary_data_size": size})
    text = json.dumps({"inputs": [described]}).encode()
    headers = {"Inference-Header-Content-Length": json_length or str(len(text))}
    response = server.client.post(INFER, content=text + bytes(sent), headers=headers)
    assert_invalid(response, field, "")
    assert_invalid(
        server.client.post(INFER, content=text), "inputs[0].parameters.binary_data_size", ""
    )
