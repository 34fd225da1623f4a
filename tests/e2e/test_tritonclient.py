"""tritonclient, unmodified, against the server: what people already have must work as it is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.e2e.harness import Server, until
from tests.stores import write_variant

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_store / "tiny", models / "tiny")
    # As slow as their cards say: the gateway believes what it sees more than the card.
    write_variant(
        models,
        "echo",
        "fp32",
        accuracy=0.95,
        latency_ms_at_1=100,
        latency_ms_at_32=100,
        delay_ms=100,
    )
    write_variant(models, "echo", "small", accuracy=0.90, latency_ms_at_1=1, delay_ms=1)
    write_variant(models, "broken", "fp32", fail_load=True)
    write_variant(models, "broken", "small")
    with Server(models, max_batch=4) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client


def image(values: np.ndarray = ROWS, *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("image", list(values.shape), np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def logits(*, binary: bool) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput("logits", binary_data=binary)


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "small")
    assert client.is_model_ready("broken")
    assert not client.is_model_ready("broken", "fp32")
    assert not client.is_model_ready("absent")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("echo")
    assert metadata["versions"] == ["fp32", "small"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert client.get_model_metadata("echo", "small")["versions"] == ["small"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_a_real_network_answers_the_same_by_json_and_by_bytes(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool
) -> None:
    (described,) = client.get_model_metadata("tiny")["inputs"]
    (wanted,) = client.get_model_metadata("tiny")["outputs"]
    shape = [3, *described["shape"][1:]]
    values = np.random.default_rng(0).random(shape, dtype=np.float32)

    def ask(*, binary_in: bool, binary_out: bool) -> np.ndarray:
        tensor = triton.InferInput(described["name"], shape, described["datatype"])
        tensor.set_data_from_numpy(values, binary_data=binary_in)
        output = triton.InferRequestedOutput(wanted["name"], binary_data=binary_out)
        result = client.infer("tiny", [tensor], model_version="fp32", outputs=[output])
        assert result.get_response()["model_version"] == "fp32"
        answer: np.ndarray = result.as_numpy(wanted["name"])
        return answer

    answer = ask(binary_in=binary_in, binary_out=binary_out)
    assert answer.shape[0] == 3
    assert answer.dtype == np.float32
    assert np.ptp(answer) > 0
    np.testing.assert_array_equal(answer, ask(binary_in=True, binary_out=True))


def test_outputs_not_named_come_as_bytes_as_the_client_asks(
    client: triton.InferenceServerClient,
) -> None:
    answer = client.infer("echo", [image()])
    np.testing.assert_array_equal(answer.as_numpy("logits"), np.zeros((2, 3), np.float32))
    assert answer.get_output("logits")["parameters"] == {"binary_data_size": 24}


def test_constraints_by_header_and_by_parameter(client: triton.InferenceServerClient) -> None:
    def variant(**how: object) -> str:
        response = client.infer("echo", [image()], **how).get_response()
        return str(response["model_version"])

    # What a busy machine delayed a moment ago makes the gateway careful for a while.
    until(lambda: variant() == "fp32", "the most accurate variant")
    assert variant(headers={"Gearshift-Max-Latency-Ms": "80"}) == "small"
    assert variant(parameters={"max_cost_usd_per_million": 0.1}) == "small"
    assert variant(parameters={"optimize": "latency"}) == "small"
    assert variant(
        headers={"Gearshift-Optimize": "latency"}, parameters={"min_accuracy": 0.93}
    ) == ("fp32")


def test_pinned_version_and_alias(client: triton.InferenceServerClient) -> None:
    for version, variant in (("small", "small"), ("fp32", "fp32"), ("reference", "fp32")):
        response = client.infer("echo", [image()], model_version=version).get_response()
        assert response["model_version"] == variant


def test_request_id_comes_back(client: triton.InferenceServerClient) -> None:
    response = client.infer("echo", [image()], request_id="request 7 é").get_response()
    assert response["id"] == "request 7 é"
    assert "id" not in client.infer("echo", [image()]).get_response()


def test_timeout_is_a_deadline(client: triton.InferenceServerClient) -> None:
    response = client.infer("echo", [image()], timeout=80_000).get_response()
    assert response["model_version"] == "small"
    with pytest.raises(InferenceServerException) as caught:
        client.infer("echo", [image()], timeout=10)
    assert caught.value.status() == "422"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_requests_and_answers_may_be_compressed(
    client: triton.InferenceServerClient, coding: str, binary: bool
) -> None:
    for rows in (2, 3000):
        answer = client.infer(
            "echo",
            [image(np.ones((rows, 4), np.float32), binary=binary)],
            outputs=[logits(binary=binary)],
            model_version="small",
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        assert answer.as_numpy("logits").shape == (rows, 3)


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ({"model_name": "absent"}, "404", "unknown model 'absent'; there are broken, echo, tiny"),
        ({"model_version": "int4"}, "404", "echo has no variant 'int4'"),
        ({"headers": {"Gearshift-Min-Accuracy": "high"}}, "400", "gearshift-min-accuracy"),
        ({"headers": {"Gearshift-Min-Acuracy": "0.9"}}, "400", "gearshift-min-acuracy"),
        ({"headers": {"Gearshift-Min-Accuracy": "0.99"}}, "422", "would fit: min_accuracy 0.93"),
        ({"inputs": [image(ROWS[:, :3])]}, "400", "inputs[0].shape"),
        ({"inputs": [image(ROWS.astype("f8"))]}, "400", "inputs[0].datatype: expected FP32"),
        ({"inputs": [image(binary=False), image(binary=False)]}, "400", "each input once"),
        ({"outputs": [triton.InferRequestedOutput("odds")]}, "400", "outputs[0].name"),
    ],
)
def test_errors_are_readable(
    client: triton.InferenceServerClient, how: dict[str, object], status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(**{"model_name": "echo", "inputs": [image()], **how})
    assert caught.value.status() == status
    assert message in caught.value.message()
    assert client.infer("echo", [image()]).as_numpy("logits").shape == (2, 3)


def test_asyncio_client(server: Server) -> None:
    async def ask() -> list[np.ndarray]:
        async with triton_aio.InferenceServerClient(server.address) as client:
            assert await client.is_server_ready()
            asked = []
            for binary in (True, False):
                tensor = triton_aio.InferInput("image", [2, 4], "FP32")
                tensor.set_data_from_numpy(ROWS, binary_data=binary)
                output = triton_aio.InferRequestedOutput("logits", binary_data=binary)
                asked += [client.infer("echo", [tensor], outputs=[output]) for _ in range(8)]
            answers = await asyncio.gather(*asked)
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("absent", [tensor])
            return [answer.as_numpy("logits") for answer in answers]

    answers = asyncio.run(ask())
    assert len(answers) == 16
    assert all(answer.shape == (2, 3) for answer in answers)


def test_many_requests_at_once(client: triton.InferenceServerClient, server: Server) -> None:
    with triton.InferenceServerClient(server.address, concurrency=8) as client:
        pending = [
            client.async_infer("echo", [image()], model_version="small", request_id=str(number))
            for number in range(64)
        ]
        ids = [request.get_result().get_response()["id"] for request in pending]
    assert ids == [str(number) for number in range(64)]
