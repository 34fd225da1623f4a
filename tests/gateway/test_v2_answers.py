"""The v2 codec's answers: what is written is read back, as JSON, as bytes and as classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.wire import classification, v2_answer
from router.card import TensorSpec
from router.errors import InvalidRequest
from tests.gateway.v2_bodies import (
    ARRAYS,
    LABEL,
    LOGITS,
    as_bytes,
    as_list,
)


@given(ARRAYS, st.booleans())
def test_an_answer_reads_back(given_: tuple[str, Tensor], binary: bool) -> None:
    datatype, array = given_
    spec = TensorSpec.model_validate(
        {"name": "y", "datatype": datatype, "shape": (-1,) * array.ndim}
    )
    body, length = v2_answer.encode({"model_name": "m"}, {"y": array}, ((spec, binary),))
    head = json.loads(body if length is None else body[:length])
    (one,) = head["outputs"]
    assert (one["name"], one["datatype"], one["shape"]) == ("y", datatype, list(array.shape))
    if binary:
        assert length is not None
        assert one["parameters"] == {"binary_data_size": len(as_bytes(array))}
        assert body[length:] == as_bytes(array)
    else:
        found = one["data"]
        if datatype == "BYTES":
            assert found == as_list(array.reshape(-1))
        else:
            # Large integers beside small ones would become floats, and lose their last digits.
            whole = array.dtype if array.dtype.kind in "iu" else None
            read = np.array(found, "f4" if datatype == "BF16" else whole)
            np.testing.assert_array_equal(read.astype(array.dtype), array.reshape(-1))


def test_bytes_that_are_no_text_need_a_binary_answer() -> None:
    spec = TensorSpec(name="y", datatype="BYTES", shape=(-1,))
    array = np.array([b"\xff"], np.object_)
    with pytest.raises(InvalidRequest, match=r"outputs\.y: expected binary_data true"):
        v2_answer.encode({}, {"y": array}, ((spec, False),))
    body, length = v2_answer.encode({}, {"y": array}, ((spec, True),))
    assert body[length:] == b"\x01\0\0\0\xff"


def test_two_binary_answers_follow_each_other() -> None:
    tensors = {"logits": np.ones((1, 2), "<f4"), "label": np.array([7], "<i8")}
    body, length = v2_answer.encode({}, tensors, ((LABEL, True), (LOGITS, True)))
    assert length is not None
    assert body[length:] == tensors["label"].tobytes() + tensors["logits"].tobytes()


def test_what_json_has_no_number_for_is_null() -> None:
    array = np.array([[np.nan, np.inf]], "<f4")
    body, _ = v2_answer.encode({}, {"logits": array}, ((LOGITS, False),))
    assert json.loads(body)["outputs"][0]["data"] == [None, None]


def test_a_slice_that_is_not_contiguous_is_written_right() -> None:
    array = np.arange(8, dtype="<f4").reshape(2, 4)[:, ::2]
    body, _ = v2_answer.encode({}, {"logits": array}, ((LOGITS, False),))
    assert json.loads(body)["outputs"][0]["data"] == [0, 2, 4, 6]


def test_the_highest_values_come_first_and_ties_in_order() -> None:
    spec = TensorSpec(name="y", datatype="FP32", shape=(-1, 4))
    tensor = np.array([[1, 3, 3, np.nan], [-np.inf, 0, 2, 1]], "<f4")
    outputs, found = classification.applied(((spec, True),), {"y": tensor}, {"y": 9}, tuple("abcd"))
    assert outputs == ((TensorSpec(name="y", datatype="BYTES", shape=(-1, -1)), True),)
    assert found["y"].tolist() == [
        [b"3.000000:1:b", b"3.000000:2:c", b"1.000000:0:a", b"nan:3:d"],
        [b"2.000000:2:c", b"1.000000:3:d", b"0.000000:1:b", b"-inf:0:a"],
    ]


@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT64", "UINT64", "BF16"])
def test_the_highest_of_every_datatype(datatype: str) -> None:
    spec = TensorSpec.model_validate({"name": "y", "datatype": datatype, "shape": (-1, 3)})
    kind = NUMPY_TYPES[datatype]
    whole = datatype != "BF16"
    limits = np.iinfo(kind) if whole else None
    values = [limits.min, limits.max, 5] if limits else [-2, 7, 5]
    tensor = np.array([values]).astype(kind) if not limits else np.array([values], kind)
    _, found = classification.applied(((spec, True),), {"y": tensor}, {"y": 2}, None)
    expected = [f"{value}:{place}" if whole else f"{value:f}:{place}"
                for value, place in ((values[1], 1), (5, 2))]  # fmt: skip
    assert [one.decode() for one in found["y"][0]] == expected


def test_labels_of_another_number_of_classes_are_not_told() -> None:
    spec = TensorSpec(name="y", datatype="FP32", shape=(-1, 2))
    tensor = np.array([[1, 3]], "<f4")
    _, found = classification.applied(((spec, True),), {"y": tensor}, {"y": 1}, ("only",))
    assert found["y"].tolist() == [[b"3.000000:1"]]
