"""The v2 codec's requests: what is sent is what is read, without copies."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines import Tensor
from gateway.wire import v2
from router.card import TensorSpec
from router.errors import InvalidRequest
from tests.gateway.v2_bodies import (
    ARRAYS,
    COUNT,
    IMAGE,
    LABEL,
    LOGITS,
    MASK,
    OUTPUTS,
    as_bytes,
    as_list,
    decode,
    tensor,
)


@given(ARRAYS, st.booleans(), st.integers(0, 7))
def test_what_is_sent_is_what_is_read(
    given_: tuple[str, Tensor], nested: bool, padding: int
) -> None:
    datatype, array = given_
    spec = TensorSpec.model_validate(
        {"name": "x", "datatype": datatype, "shape": (-1,) * array.ndim}
    )
    shape = list(array.shape)
    data = as_list(array if nested else array.reshape(-1))
    one = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    body = decode({"inputs": [one]}, spec)
    assert body.rows == shape[0]
    assert body.inputs["x"].dtype == array.dtype
    np.testing.assert_array_equal(body.inputs["x"], array)

    del one["data"]
    raw = as_bytes(array)
    document = {
        "id": "i" * padding,  # moves the bytes to every alignment
        "inputs": [{**one, "parameters": {"binary_data_size": len(raw)}}],
    }
    viewed = decode(document, spec, tail=raw).inputs["x"]
    assert viewed.dtype == array.dtype
    assert not viewed.flags.owndata or datatype == "BYTES", "a copy was made"
    np.testing.assert_array_equal(viewed, array)


def test_json_and_binary_inputs_side_by_side() -> None:
    count = {"name": "count", "datatype": "INT8", "shape": [1], "data": [-128]}
    mask = {
        "name": "mask",
        "datatype": "BOOL",
        "shape": [1, 2],
        "parameters": {"binary_data_size": 2},
    }
    body = decode({"inputs": [count, mask]}, COUNT, MASK, tail=b"\x00\x01")
    assert body.inputs["count"].tolist() == [-128]
    assert body.inputs["mask"].tolist() == [[False, True]]


def test_binary_tensors_are_views_of_the_body() -> None:
    one = tensor(data=..., parameters={"binary_data_size": 24})
    text = orjson.dumps({"inputs": [one]})
    text += b" " * (-len(text) % 8)
    content = text + bytes(24)
    # The allocator aligns a bytes object's content to its header, 32 bytes on CPython.
    body = v2.decode(content, b"%d" % len(text), {"image": IMAGE}, OUTPUTS)
    assert body.inputs["image"].base is not None
    assert not body.inputs["image"].flags.owndata


def test_id_parameters_and_outputs() -> None:
    body = decode(
        {
            "id": "42",
            "parameters": {"priority": 1},
            "inputs": [tensor()],
            "outputs": [{"name": "label"}, {"name": "logits", "parameters": {"binary_data": True}}],
        }
    )
    assert (body.id, body.parameters) == ("42", {"priority": 1})
    assert body.outputs == ((LABEL, False), (LOGITS, True))


def test_all_outputs_when_none_is_chosen() -> None:
    assert decode({"inputs": [tensor()]}).outputs == ((LOGITS, False), (LABEL, False))
    body = decode({"inputs": [tensor()], "parameters": {"binary_data_output": True}})
    assert body.outputs == ((LOGITS, True), (LABEL, True))


def raw(body: bytes, *shape: int, datatype: str = "FP32") -> Tensor:
    spec = TensorSpec.model_validate({"name": "x", "datatype": datatype, "shape": shape})
    return v2.decode(body, b"0", {"x": spec}, OUTPUTS).inputs["x"]


def test_a_raw_body_says_its_own_shape() -> None:
    assert raw(bytes(24), -1, 3).shape == (2, 3)
    assert raw(bytes(24), -1, -1, 3).shape == (1, 2, 3)
    assert raw(b"text", -1, datatype="BYTES").tolist() == [b"text"]
    assert raw(b"text", -1, 1, datatype="BYTES").tolist() == [[b"text"]]
    for size, shape in ((20, (-1, 3)), (0, (-1, 3)), (24, (-1, -1, -1))):
        with pytest.raises(InvalidRequest):
            raw(bytes(size), *shape)
    with pytest.raises(InvalidRequest, match="one element a row"):
        raw(b"text", -1, 2, datatype="BYTES")
