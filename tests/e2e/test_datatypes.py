"""The v2 protocol whole, through tritonclient unmodified and by hand: every datatype in JSON and in
binary, raw requests, classification, statistics, configuration."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator

import httpx
import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from gateway.engines import NUMPY_TYPES
from router.card import TensorSpec
from tests.e2e.harness import Server
from tests.e2e.problems import assert_invalid
from tests.stores import write_variant

SCORES = TensorSpec(name="scores", datatype="FP32", shape=(-1, 3))
LABELS = ("cat", "dog", "fish")


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "datatype": datatype, "shape": (-1, *shape)})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    for datatype in NUMPY_TYPES:
        ports = {"inputs": (spec("x", datatype, 2),), "outputs": (spec("y", datatype, 2),)}
        write_variant(models, datatype.lower(), "fp32", mirror=True, **ports)
    write_variant(models, "pets", "fp32", mirror=True, outputs=(SCORES,), labels=LABELS)
    write_variant(models, "pets", "small", accuracy=0.8, outputs=(SCORES,), labels=LABELS)
    write_variant(models, "text", "fp32", mirror=True,
                  inputs=(spec("x", "BYTES"),), outputs=(spec("y", "BYTES"),))  # fmt: skip
    write_variant(models, "two", "fp32", inputs=(spec("a", "FP32"), spec("b", "FP32")))
    write_variant(models, "failing", "fp32", fail_after=100)
    with Server(models, max_batch=4) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client


def sample(datatype: str) -> np.ndarray:
    """Two rows; the first of each row comes back."""
    if datatype == "BYTES":
        return np.array([[b"one", b""], ["zwölf".encode(), b"\0,"]], np.object_)
    values = np.array([[1, 0], [0, 1]])
    return values.astype(NUMPY_TYPES[datatype])


@pytest.mark.parametrize("datatype", sorted(NUMPY_TYPES))
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_there_and_back(
    client: triton.InferenceServerClient, server: Server, datatype: str, binary: bool
) -> None:
    values = sample(datatype)
    expected = values[:, :1].repeat(2, axis=1)
    if datatype in ("FP16", "BF16") and not binary:
        # The client refuses to write these as JSON; others do not.
        one = {
            "name": "x",
            "datatype": datatype,
            "shape": [2, 2],
            "data": values.astype(int).tolist(),
        }
        response = server.client.post(
            f"/v2/models/{datatype.lower()}/infer", json={"inputs": [one]}
        )
        (output,) = response.json()["outputs"]
        assert (output["datatype"], output["shape"]) == (datatype, [2, 2])
        assert output["data"] == expected.reshape(-1).astype(float).tolist()
        return
    tensor = triton.InferInput("x", [2, 2], datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    output = triton.InferRequestedOutput("y", binary_data=binary)
    answer = client.infer(datatype.lower(), [tensor], outputs=[output]).as_numpy("y")
    if datatype == "BYTES" and not binary:
        answer = np.vectorize(str.encode, otypes=[object])(answer)
    np.testing.assert_array_equal(answer, expected)


def test_bfloat16_is_two_bytes(server: Server) -> None:
    values = np.array([[1.5, 2], [-3, 0]], ml_dtypes.bfloat16)
    response = server.client.post(
        "/v2/models/bf16/infer",
        content=values.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    length = int(response.headers["inference-header-content-length"])
    assert response.content[length:] == values[:, :1].repeat(2, axis=1).tobytes()


def raw(server: Server, model: str, body: bytes) -> httpx.Response:
    return server.client.post(
        f"/v2/models/{model}/infer", content=body, headers={"Inference-Header-Content-Length": "0"}
    )


def test_a_raw_request_is_the_bytes_alone(server: Server) -> None:
    response = raw(server, "pets", np.arange(8, dtype="<f4").tobytes())
    length = int(response.headers["inference-header-content-length"])
    answer = np.frombuffer(response.content[length:], "<f4").reshape(2, 3)
    np.testing.assert_array_equal(answer, [[0, 0, 0], [4, 4, 4]])
    # One element of text, without a length before it.
    response = raw(server, "text", "grüß".encode())
    length = int(response.headers["inference-header-content-length"])
    assert response.content[length:] == struct.pack("<I", 6) + "grüß".encode()


def test_raw_requests_that_are_no_tensor(server: Server) -> None:
    assert_invalid(raw(server, "pets", b""), "body", "0 bytes")
    assert_invalid(raw(server, "pets", bytes(17)), "body", "17 bytes")
    assert_invalid(raw(server, "bool", b"\0\2"), "body", "2")
    assert_invalid(raw(server, "bytes", b"text"), "body", "4 bytes")
    assert_invalid(raw(server, "two", bytes(8)), "Inference-Header-Content-Length", "0")


def test_bytes_that_are_no_text_need_a_binary_answer(server: Server) -> None:
    counted = {"model": "text", "outcome": "invalid-request"}
    before = server.metric("gearshift_requests_total", **counted)
    one = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}
    body = json.dumps({"inputs": [one]}).encode()
    response = server.client.post(
        "/v2/models/text/infer",
        content=body + b"\1\0\0\0\xff",
        headers={"Inference-Header-Content-Length": str(len(body))},
    )
    assert_invalid(response, "outputs.y", "JSON")
    assert server.metric("gearshift_requests_total", **counted) == before + 1
    assert raw(server, "text", b"\xff").content.endswith(b"\1\0\0\0\xff")


def test_classification_as_the_client_asks_for_it(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("image", [2, 4], "FP32")
    tensor.set_data_from_numpy(np.array([[0.25, 0, 0, 0], [-7, 0, 0, 0]], np.float32))
    for binary in (True, False):
        output = triton.InferRequestedOutput("scores", binary_data=binary, class_count=2)
        answer = client.infer("pets", [tensor], outputs=[output], model_version="fp32")
        strings = answer.as_numpy("scores")
        assert strings.shape == (2, 2)
        found = [[s if isinstance(s, str) else s.decode() for s in row] for row in strings]
        assert found == [
            ["0.250000:0:cat", "0.250000:1:dog"], ["-7.000000:0:cat", "-7.000000:1:dog"],
        ]  # fmt: skip


def test_classification_that_makes_no_sense(server: Server) -> None:
    for output, count, model in (
        ("scores", -1, "pets"), ("scores", True, "pets"), ("scores", "2", "pets"),
        ("y", 1, "bool"), ("y", 1, "text"),
    ):  # fmt: skip
        wanted = {"name": output, "parameters": {"classification": count}}
        one = {"name": "x", "datatype": model.upper(), "shape": [1, 2], "data": [True, False]}
        if model == "text":
            one |= {"datatype": "BYTES", "shape": [1], "data": ["a"]}
        if model == "pets":
            one = {"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [0] * 4}
        response = server.client.post(
            f"/v2/models/{model}/infer", json={"inputs": [one], "outputs": [wanted]}
        )
        assert_invalid(response, "outputs[0].parameters.classification", str(count))


def test_labels_stand_in_the_metadata(client: triton.InferenceServerClient) -> None:
    (output,) = client.get_model_metadata("pets")["outputs"]
    assert output["parameters"] == {"labels": list(LABELS)}
    extensions = client.get_server_metadata()["extensions"]
    assert {"classification", "statistics", "model_configuration"} <= set(extensions)


def test_configuration(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("pets")
    assert (config["name"], config["max_batch_size"]) == ("pets", 4)
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [4]}]
    assert client.get_model_config("pets", "small") == config
    assert client.get_model_config("bytes")["input"][0]["data_type"] == "TYPE_STRING"
    with pytest.raises(InferenceServerException, match="no variant 'int4'"):
        client.get_model_config("pets", "int4")


def test_statistics_count_what_was_asked(client: triton.InferenceServerClient) -> None:
    def of(version: str = "") -> list[dict]:
        return client.get_inference_statistics("pets", version)["model_stats"]

    def ask(rows: int, version: str) -> None:
        tensor = triton.InferInput("image", [rows, 4], "FP32")
        tensor.set_data_from_numpy(np.zeros((rows, 4), np.float32))
        client.infer("pets", [tensor], model_version=version)

    (before,) = of("small")
    for rows in (1, 1, 3):
        ask(rows, "small")
    (after,) = of("small")
    assert after["version"] == "small"
    grown = {
        name: after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"]
        for name in after["inference_stats"]
    }
    assert grown == {
        "success": 3, "fail": 0, "queue": 3, "compute_input": 3, "compute_infer": 3,
        "compute_output": 3, "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["execution_count"] - before["execution_count"] == 3
    times = after["inference_stats"]
    assert times["success"]["ns"] >= times["compute_infer"]["ns"] > 0
    assert after["last_inference"] > 1.7e12
    sizes = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in after["batch_stats"]}
    assert {1: 2, 3: 1}.items() <= sizes.items()
    assert [one["version"] for one in of()] == ["fp32", "small"]
    every = client.get_inference_statistics()["model_stats"]
    assert {one["name"] for one in every} >= {"pets", "bytes"}


def test_a_failure_is_counted_for_the_variant_that_failed(
    client: triton.InferenceServerClient, server: Server
) -> None:
    while server.infer("failing").status_code == 200:
        pass
    (one,) = client.get_inference_statistics("failing")["model_stats"]
    assert one["inference_stats"]["fail"]["count"] == 1


def test_asyncio_client_with_bytes_and_classes(server: Server) -> None:
    async def ask() -> tuple[np.ndarray, np.ndarray, dict]:
        async with triton_aio.InferenceServerClient(server.address) as client:
            text = triton_aio.InferInput("x", [2], "BYTES")
            text.set_data_from_numpy(np.array([b"a", b"bc"], np.object_))
            strings = await client.infer("text", [text])
            image = triton_aio.InferInput("image", [1, 4], "FP32")
            image.set_data_from_numpy(np.ones((1, 4), np.float32))
            output = triton_aio.InferRequestedOutput("scores", class_count=1)
            top = await client.infer("pets", [image], outputs=[output], model_version="fp32")
            statistics = await client.get_inference_statistics("text")
            return strings.as_numpy("y"), top.as_numpy("scores"), statistics

    strings, top, statistics = asyncio.run(ask())
    assert strings.tolist() == [b"a", b"bc"]
    assert top.tolist() == [[b"1.000000:0:cat"]]
    assert statistics["model_stats"][0]["inference_stats"]["success"]["count"] >= 1
