"""tritonclient.grpc, unmodified, against the server: sync, asyncio and streaming."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from router.card import TensorSpec
from tests.e2e import statuses
from tests.e2e.harness import PATIENCE_S, Server, until
from tests.e2e.statuses import Ask
from tests.stores import write_three, write_variant

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models, labels=("low", "middle", "high"))
    write_variant(
        models,
        "digits",
        "fp32",
        inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 24, 24)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, 10)),),
    )
    for datatype in DATATYPES:
        write_variant(
            models,
            datatype.lower(),
            "fp32",
            inputs=(TensorSpec(name="given", datatype=datatype, shape=(-1, 2)),),
            outputs=(TensorSpec(name="same", datatype=datatype, shape=(-1, 2)),),
            mirror=True,
        )
    with Server(models, max_batch=2, grpc_port=0) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_address) as client:
        yield client


@pytest.fixture
def stub(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield GRPCInferenceServiceStub(channel)


def image(values: np.ndarray = ROWS) -> triton.InferInput:
    tensor = triton.InferInput("image", list(values.shape), np_to_triton_dtype(values.dtype))
    return tensor.set_data_from_numpy(values)


def test_health_metadata_and_configuration(
    server: Server, client: triton.InferenceServerClient
) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("echo") and client.is_model_ready("echo", "small")
    told = client.get_server_metadata(as_json=True)
    assert told == server.client.get("/v2").json()
    metadata = client.get_model_metadata("echo", as_json=True)
    assert metadata["versions"] == ["fp32", "int8", "small"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert client.get_model_metadata("echo", "small").versions == ["small"]
    config = client.get_model_config("echo").config
    assert (config.name, config.max_batch_size) == ("echo", 2)
    assert [(one.name, one.dims) for one in config.input] == [("image", [4])]
    for unknown in (("absent",), ("echo", "int4")):
        assert not client.is_model_ready(*unknown)
        with pytest.raises(InferenceServerException, match=r"unknown|no variant") as caught:
            client.get_model_metadata(*unknown)
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_statistics_count_what_was_answered(client: triton.InferenceServerClient) -> None:
    def counted() -> tuple[int, int]:
        (one,) = client.get_inference_statistics("echo", "small").model_stats
        return one.inference_count, one.inference_stats.success.count

    rows, answers = counted()
    client.infer("echo", [image()], model_version="small")
    assert counted() == (rows + 2, answers + 1)
    every = client.get_inference_statistics().model_stats
    assert {(one.name, one.version) for one in every} >= {("echo", "fp32"), ("bytes", "fp32")}


def test_repository(client: triton.InferenceServerClient) -> None:
    listed = client.get_model_repository_index().models
    assert ("echo", "int8", "READY") in [(one.name, one.version, one.state) for one in listed]
    tensor = triton.InferInput("given", [2, 2], "UINT8").set_data_from_numpy(values_of("UINT8"))
    client.unload_model("uint8")
    assert not client.is_model_ready("uint8")
    with pytest.raises(InferenceServerException, match="unloaded"):
        client.infer("uint8", [tensor])
    client.load_model("uint8")
    assert client.is_model_ready("uint8")
    assert client.infer("uint8", [tensor]).as_numpy("same").shape == (2, 2)
    with pytest.raises(InferenceServerException, match="unknown model 'absent'"):
        client.load_model("absent")
    with pytest.raises(InferenceServerException, match=r"parameters.config: expected none"):
        client.load_model("uint8", config="{}")


def test_the_same_answer_as_over_rest(server: Server, client: triton.InferenceServerClient) -> None:
    values = values_of("FP32")
    tensor = triton.InferInput("given", [2, 2], "FP32").set_data_from_numpy(values)
    answer = client.infer("fp32", [tensor], request_id="seven")
    assert answer.get_response().id == "seven"
    with triton_http.InferenceServerClient(server.address) as http:
        tensor = triton_http.InferInput("given", [2, 2], "FP32").set_data_from_numpy(values)
        rest = http.infer("fp32", [tensor]).as_numpy("same")
    assert np.ptp(rest) > 0
    np.testing.assert_array_equal(answer.as_numpy("same"), rest)


def values_of(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([[b"", b"\x00\xff"], [b"gear", b"shift"]], np.object_)
    if datatype == "BOOL":
        return np.array([[True, False], [False, True]])
    kinds = {"BF16": ml_dtypes.bfloat16, "FP16": np.float16, "FP32": np.float32}
    kind = kinds.get(datatype) or np.dtype(datatype.lower().replace("fp", "float"))
    return np.array([[0, 1], [2, 100]]).astype(kind)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_there_and_back(client: triton.InferenceServerClient, datatype: str) -> None:
    values = values_of(datatype)
    tensor = triton.InferInput("given", [2, 2], datatype).set_data_from_numpy(values)
    answer = client.infer(datatype.lower(), [tensor])
    (output,) = answer.get_response().outputs
    assert (output.datatype, list(output.shape)) == (datatype, [2, 2])
    assert len(answer.get_response().raw_output_contents) == 1
    # The engine fills each row with its first value.
    np.testing.assert_array_equal(
        answer.as_numpy("same").astype(values.dtype), np.repeat(values[:, :1], 2, axis=1)
    )


@pytest.mark.parametrize("raw", [True, False, None])
def test_an_answer_is_raw_as_its_request_is_or_asks(stub: Any, raw: bool | None) -> None:
    asked = {} if raw is None else {"binary_data_output": raw}
    answer = stub.ModelInfer(statuses.message(Ask(parameters=asked)))
    assert len(answer.raw_output_contents) == bool(raw)
    assert list(answer.outputs[0].contents.fp32_contents) == ([] if raw else [0.0] * 3)
    message = statuses.message(Ask(parameters=asked))
    message.raw_input_contents.append(bytes(16))
    del message.inputs[0].contents.fp32_contents[:]
    answer = stub.ModelInfer(message)
    assert len(answer.raw_output_contents) == (raw is not False)


def test_constraints_by_metadata_and_by_parameter(client: triton.InferenceServerClient) -> None:
    def variant(**how: Any) -> str:
        return str(client.infer("echo", [image()], **how).get_response().model_version)

    until(lambda: variant() == "fp32", "the most accurate variant")
    assert variant(headers={"gearshift-optimize": "latency"}) == "small"
    assert variant(headers={"gearshift-variant": "int8"}) == "int8"
    assert variant(parameters={"max_cost_usd_per_million": 0.005}) == "small"
    assert variant(parameters={"optimize": "latency", "min_accuracy": 0.92}) == "int8"
    assert variant(model_version="reference") == "fp32"
    assert variant(priority=1, timeout=10_000_000) == "fp32"


def test_what_an_answer_says_about_itself(stub: Any) -> None:
    ask = statuses.message(Ask(parameters={"optimize": "latency"}))
    answer, call = stub.ModelInfer.with_call(ask, metadata=[("gearshift-explain", "true")])
    said = dict(call.trailing_metadata())
    assert said["gearshift-variant"] == answer.model_version == "small"
    assert said["gearshift-reason"].startswith("fastest; ")
    assert 0 < float(said["gearshift-accuracy"]) < 1
    assert float(said["gearshift-cost-usd-per-million"]) > 0
    assert float(said["gearshift-predicted-latency-ms"]) > 0
    assert said["server-timing"].startswith("parse;dur=")
    for name, text in said.items():
        assert answer.parameters[name.replace("-", "_")].string_param == text
    decision = json.loads(answer.parameters["gearshift_decision"].string_param)
    assert decision["variant"] == "small"


def test_classification(client: triton.InferenceServerClient) -> None:
    wanted = triton.InferRequestedOutput("logits", class_count=2)
    answer = client.infer("echo", [image()], outputs=[wanted]).as_numpy("logits")
    assert answer.tolist() == [[b"0.000000:0:low", b"0.000000:1:middle"]] * 2


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client: triton.InferenceServerClient, algorithm: str) -> None:
    answer = client.infer("echo", [image()], compression_algorithm=algorithm)
    assert answer.as_numpy("logits").shape == (2, 3)


def test_asyncio_client(server: Server) -> None:
    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            assert await client.is_server_ready()
            asked = [client.infer("echo", [image()], request_id=str(n)) for n in range(32)]
            answers = await asyncio.gather(*asked)
            with pytest.raises(InferenceServerException, match="unknown model 'absent'"):
                await client.infer("absent", [image()])
            return [answer.get_response().id for answer in answers]

    assert asyncio.run(ask()) == [str(number) for number in range(32)]


def test_stream_is_answered_in_order_and_outlives_a_bad_request(
    client: triton.InferenceServerClient,
) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    # More than a stream has room for at once.
    for number in range(100):
        model = "absent" if number == 50 else "echo"
        version = "small" if number % 3 else "fp32"
        client.async_stream_infer(
            model, [image()], model_version=version, request_id=str(number),
            enable_empty_final_response=True,
        )  # fmt: skip
    came = [answers.get(timeout=PATIENCE_S) for _ in range(100)]
    client.stop_stream()
    result, error = came.pop(50)
    assert result is None and error.message() == "unknown model 'absent'; there are " + (
        ", ".join(sorted(["digits", "echo", *(datatype.lower() for datatype in DATATYPES)]))
    )
    assert all(error is None for _, error in came)
    responses = [result.get_response() for result, _ in came]
    assert [int(one.id) for one in responses] == [n for n in range(100) if n != 50]
    for one in responses:
        assert one.parameters["gearshift_variant"].string_param == one.model_version
        assert one.parameters["triton_final_response"].bool_param


def test_refusals_in_a_stream_carry_their_problem(stub: Any) -> None:
    asks = [Ask(parameters={"min_accuracy": 2.0}), Ask(), Ask(version="int4")]
    answers = list(stub.ModelStreamInfer(iter([statuses.message(ask) for ask in asks])))
    codes = [one.infer_response.parameters["gearshift_code"].string_param for one in answers]
    assert codes == ["invalid-request", "", "unknown-variant"]
    problem = json.loads(answers[0].infer_response.parameters["gearshift_problem"].string_param)
    assert problem["field"] == "parameters.min_accuracy"
    assert problem["detail"] == answers[0].error_message
    assert answers[1].infer_response.outputs


def test_asyncio_stream(server: Server) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(10):
            yield {"model_name": "echo", "inputs": [image()], "request_id": str(number)}

    async def ask() -> list[str]:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            return [
                result.get_response().id
                async for result, error in client.stream_infer(requests())
                if error is None
            ]

    assert asyncio.run(ask()) == [str(number) for number in range(10)]


def test_extensions_that_are_not_offered_say_so(client: triton.InferenceServerClient) -> None:
    with pytest.raises(
        InferenceServerException, match="an extension that is not offered"
    ) as caught:
        client.get_system_shared_memory_status()
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    tensor = image()
    tensor.set_shared_memory("region", 32)
    with pytest.raises(InferenceServerException, match="shared memory extensions are not offered"):
        client.infer("echo", [tensor])


def test_the_example_of_the_page(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "grpc.md").read_text(
        encoding="utf-8"
    )
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = example.replace("127.0.0.1:8081", server.grpc_address)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ran.stdout.decode().split() == [*["[[0."], *["0."] * 8, "0.]]", "fp32"]
