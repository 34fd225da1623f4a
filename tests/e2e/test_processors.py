"""Text and pictures sent as they are: by tritonclient, by hand, and beside raw tensors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton

from router.card import TensorSpec
from router.processor import ImageProcessor
from tests.e2e.harness import PATIENCE_S, Server, until
from tests.e2e.problems import assert_invalid, assert_problem
from tests.processed import picture, text_processor, tokenizer, tokens
from tests.stores import write_variant

PIXELS = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 2, 2))
SCORES = TensorSpec(name="scores", datatype="FP32", shape=(-1, 1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    ports = {"inputs": (tokens("ids"), tokens("mask")), "outputs": (SCORES,)}
    files = {"tokenizer.json": tokenizer()}
    for variant in ("fp32", "small"):
        write_variant(
            models, "words", variant, mirror=True, processor=text_processor(), files=files, **ports
        )
    write_variant(
        models, "broken", "fp32", processor=text_processor(), files={"tokenizer.json": b"{}"},
        **ports,
    )  # fmt: skip
    write_variant(
        models,
        "pictures",
        "fp32",
        mirror=True,
        inputs=(PIXELS,),
        outputs=(SCORES,),
        processor=ImageProcessor(
            input="file", pixels="image", mode="L", scale=1.0, max_pixels=10_000
        ),
    )
    large = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 1024, 1024))
    write_variant(
        models, "large", "fp32", mirror=True, inputs=(large,), outputs=(SCORES,),
        processor=ImageProcessor(input="file", pixels="image", mode="L"),
    )  # fmt: skip
    with Server(models, grpc_port=0) as server:
        yield server
        assert "Traceback" not in server.log()


def test_metadata_shows_what_to_send(server: Server) -> None:
    with triton.InferenceServerClient(server.address) as client:
        (text,) = client.get_model_metadata("words")["inputs"]
        assert (text["name"], text["datatype"], text["shape"]) == ("text", "BYTES", [-1])
        assert text["parameters"]["processor"] == "text"
        assert [each["name"] for each in text["parameters"]["instead_of"]] == ["ids", "mask"]
        assert client.get_model_config("words")["input"][0]["data_type"] == "TYPE_STRING"
        # Whose processor cannot be opened takes the tensors themselves.
        assert len(client.get_model_metadata("broken")["inputs"]) == 2
    assert "broken takes no text: tokenizer.json is not the one" in server.log()


@pytest.mark.parametrize("binary", [True, False])
def test_text_through_the_client(server: Server, binary: bool) -> None:
    with triton.InferenceServerClient(server.address) as client:
        text = triton.InferInput("text", [2], "BYTES")
        text.set_data_from_numpy(np.array([b"the cat", b"sat"], np.object_), binary_data=binary)
        answer = client.infer("words", [text], model_version="small")
        assert answer.as_numpy("scores").tolist() == [[1.0], [1.0]]  # the special token's id
        assert answer.get_response()["model_version"] == "small"


def test_text_and_pictures_over_grpc(server: Server) -> None:
    with triton_grpc.InferenceServerClient(server.grpc_address) as client:
        (described,) = client.get_model_metadata("words").inputs
        assert (described.name, described.datatype) == ("text", "BYTES")
        text = triton_grpc.InferInput("text", [1], "BYTES")
        text.set_data_from_numpy(np.array([b"the cat"], np.object_))
        assert client.infer("words", [text]).as_numpy("scores").tolist() == [[1.0]]
        file = triton_grpc.InferInput("file", [1], "BYTES")
        file.set_data_from_numpy(np.array([b"no picture"], np.object_))
        with pytest.raises(triton.InferenceServerException, match=r"inputs\.file: expected a pict"):
            client.infer("pictures", [file])


def test_tensors_stay_possible(server: Server) -> None:
    ids = {"name": "ids", "datatype": "INT64", "shape": [1, 2], "data": [7, 3]}
    mask = {"name": "mask", "datatype": "INT64", "shape": [1, 2], "data": [1, 1]}
    response = server.client.post("/v2/models/words/infer", json={"inputs": [ids, mask]})
    assert response.json()["outputs"][0]["data"] == [7.0]
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["the"]}
    for inputs, field in (
        ([ids], "inputs"), ([text, ids], "inputs[1].name"), ([ids, text], "inputs[0].name"),
        ([{**text, "data": [1]}], "inputs[0].data"),
        ([{**text, "shape": [1, 1]}], "inputs[0].shape"),
    ):  # fmt: skip
        response = server.client.post("/v2/models/words/infer", json={"inputs": inputs})
        assert_invalid(response, field, "")


def test_a_picture_as_a_raw_body(server: Server) -> None:
    pixels = np.array([[40, 80], [120, 160]], np.uint8)
    response = server.client.post(
        "/v2/models/pictures/infer",
        content=picture(pixels),
        headers={"Inference-Header-Content-Length": "0"},
    )
    length = int(response.headers["inference-header-content-length"])
    assert np.frombuffer(response.content[length:], "<f4") == 40
    assert json.loads(response.content[:length])["model_name"] == "pictures"


def test_what_is_no_picture_is_refused_by_its_row(server: Server) -> None:
    with triton.InferenceServerClient(server.address) as client:
        good = picture(np.zeros((4, 4), np.uint8))
        for bad, expected in (
            (b"no picture", "a picture in PNG or JPEG"),
            (picture(np.zeros((200, 200), np.uint8)), "at most 10000 pixels"),
        ):
            files = triton.InferInput("file", [2], "BYTES")
            files.set_data_from_numpy(np.array([good, bad], np.object_))
            with pytest.raises(triton.InferenceServerException, match=expected) as caught:
                client.infer("pictures", [files])
            assert caught.value.status() == "400"
            assert "row 1" in caught.value.message()
    assert server.metric("gearshift_requests_total", model="pictures", outcome="invalid-request")


def test_more_rows_than_may_be_made_are_refused_undecoded(server: Server) -> None:
    """In the same words over both protocols, of what would be refused for itself otherwise."""
    raw = np.array([b"no picture"] * 17, np.object_)
    words = "inputs.file: expected at most 16 rows, for each becomes 4194304 bytes of tensors"
    with triton.InferenceServerClient(server.address) as client:
        files = triton.InferInput("file", [17], "BYTES")
        files.set_data_from_numpy(raw)
        with pytest.raises(triton.InferenceServerException, match=words) as caught:
            client.infer("large", [files])
        assert caught.value.status() == "400"
    with triton_grpc.InferenceServerClient(server.grpc_address) as client:
        files = triton_grpc.InferInput("file", [17], "BYTES")
        files.set_data_from_numpy(raw)
        with pytest.raises(triton.InferenceServerException, match=words) as caught:
            client.infer("large", [files])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_deadline_counts_while_inputs_are_processed(server: Server) -> None:
    response = server.client.post(
        "/v2/models/words/infer",
        json={"inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [2000], "data": ["cat " * 500] * 2000}
        ]},
        headers={"Gearshift-Max-Latency-Ms": "30"},
    )  # fmt: skip
    assert_problem(response, 504, code="deadline-passed")


def test_what_nobody_waits_for_any_more_is_not_processed(server: Server) -> None:
    """1000 pictures take much longer than the caller waits, or stays."""
    many = np.array([picture(np.zeros((100, 100), np.uint8))] * 1000, np.object_)
    files = triton.InferInput("file", [1000], "BYTES")
    files.set_data_from_numpy(many)
    raw, length = triton.InferenceServerClient.generate_request_body([files])
    headers = {"Inference-Header-Content-Length": str(length)}
    path = "/v2/models/pictures/infer"
    limit = {"Gearshift-Max-Latency-Ms": "8"}
    assert_problem(
        server.client.post(path, content=raw, headers=headers | limit), 504, code="deadline-passed"
    )
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=server.client.base_url) as client:
        leaves = httpx.Timeout(PATIENCE_S, read=0.015)
        client.post(path, content=raw, headers=headers, timeout=leaves)
    gone = {"model": "pictures", "outcome": "caller-left"}
    until(lambda: server.metric("gearshift_requests_total", **gone) == 1, "the caller is missed")


def test_many_at_once(server: Server) -> None:
    import tritonclient.http.aio as triton_aio

    async def ask() -> list[list[list[float]]]:
        async with triton_aio.InferenceServerClient(server.address) as client:
            asked = []
            for number in range(40):
                text = triton_aio.InferInput("text", [1], "BYTES")
                text.set_data_from_numpy(np.array([b"cat " * (number % 7)], np.object_))
                asked.append(client.infer("words", [text]))
            return [answer.as_numpy("scores").tolist() for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [[[1.0]]] * 40
