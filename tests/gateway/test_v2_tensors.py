"""The v2 codec's tensors: values, sizes and bytes that do not fit are refused by their field."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import byte_elements, v2
from gateway.wire.long_lists import LONG_BYTES
from router.card import TensorSpec
from router.errors import InvalidRequest
from tests.gateway.v2_bodies import (
    COUNT,
    IMAGE,
    MASK,
    OUTPUTS,
    decode,
    refusal,
    tensor,
)

TEXT = TensorSpec(name="text", datatype="BYTES", shape=(-1, 2))


def strings(**changes: Any) -> dict[str, Any]:
    return tensor(name="text", datatype="BYTES", shape=[1, 2], **changes)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (["a"], "a list of shape [1]"), (["a", "b", "c"], "a list of shape [3]"),
        ([["a"], ["b"]], "a list of shape [2, 1]"), ([["a", "b"], ["c"]], "a list of shape [2, 2]"),
        (["a", 1], "1"), (["a", None], "nothing"), (["a", True], "True"), (["a", {}], "{}"),
        ([["a", ["b"]]], "['b']"), ([["a"], "b"], "a list of shape [2, 1]"),
    ],
)  # fmt: skip
def test_bytes_in_json_that_do_not_fit(data: list[object], shown: str) -> None:
    error = refusal({"inputs": [strings(data=data)]}, TEXT)
    assert error.members["field"] == "inputs[0].data"
    assert str(error.members["received"]) == shown


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b"", "at least 8 bytes"), (b"\1\0\0\0a", "at least 8 bytes"),
        (b"\5\0\0\0a\0\0\0", "element 0 whole, of 5 bytes"),
        (b"\1\0\0\0a\1\0\0\0", "element 1 whole, of 1 bytes"),
        (b"\xff\xff\xff\xffaaaaaaaa", "element 0 whole, of 4294967295 bytes"),
        (b"\1\0\0\0a\0\0\0\0b", "9 bytes, which 2 BYTES elements take"),
        (b"\4\0\0\0aaaa\1\0\0", "element 1 whole"),
    ],
)  # fmt: skip
def test_lengths_that_do_not_add_up(tail: bytes, expected: str) -> None:
    one = strings(data=..., parameters={"binary_data_size": len(tail)})
    error = refusal({"inputs": [one]}, TEXT, tail=tail, length=len(orjson.dumps({"inputs": [one]})))
    assert error.members["field"] == "inputs[0].parameters.binary_data_size"
    assert expected in str(error.members["expected"])


@given(st.binary(max_size=40), st.integers(1, 4))
def test_any_bytes_are_elements_or_refused(raw: bytes, count: int) -> None:
    try:
        found = byte_elements.unpack("x", memoryview(raw), (count,), count)
    except InvalidRequest:
        return
    assert byte_elements.pack(found) == raw


def test_a_number_too_large_for_bf16() -> None:
    spec = TensorSpec(name="x", datatype="BF16", shape=(-1, 1))
    one = {"name": "x", "datatype": "BF16", "shape": [1, 1], "data": [3.4e38]}
    assert "BF16 values up to 3.38953e+38" in refusal({"inputs": [one]}, spec).detail
    one["data"] = [1.00390625]  # between two of its numbers: rounds to the even one
    assert float(decode({"inputs": [one]}, spec).inputs["x"][0, 0]) == 1.0


@pytest.mark.parametrize(
    ("element", "shown"),
    [(1.5, "1.5"), (1.0, "1.0"), (128, "128"), (-129, "-129"), (2**64, "1.8446744073709552e+19"),
     (True, "True"), ("7", "'7'"), (2**63, "9223372036854775808")],
)  # fmt: skip
def test_an_element_out_of_an_integer_datatype(element: object, shown: str) -> None:
    count = {"name": "count", "datatype": "INT8", "shape": [2], "data": [0, element]}
    # As plain JSON: orjson does not write integers beyond 64 bits.
    with pytest.raises(InvalidRequest) as error:
        v2.decode(json.dumps({"inputs": [count]}).encode(), None, {"count": COUNT}, OUTPUTS)
    assert error.value.members["field"] == "inputs[0].data"
    assert shown in str(error.value.members["received"])
    assert "INT8" in str(error.value.members["expected"])


def test_integers_that_no_signed_datatype_holds() -> None:
    spec = TensorSpec(name="x", datatype="UINT64", shape=(-1, 2))
    for data in ([0, 2**64 - 1], [[0, 2**64 - 1]]):
        one = {"name": "x", "datatype": "UINT64", "shape": [1, 2], "data": data}
        assert decode({"inputs": [one]}, spec).inputs["x"].tolist() == [[0, 2**64 - 1]]


def test_booleans_are_true_and_false_alone() -> None:
    mask = {"name": "mask", "datatype": "BOOL", "shape": [1, 2], "data": [True, 1]}
    assert refusal({"inputs": [mask]}, MASK).members["received"] == "1"
    mask["data"] = [[False, True]]
    assert decode({"inputs": [mask]}, MASK).inputs["mask"].tolist() == [[False, True]]


def test_rows_must_agree() -> None:
    count = {"name": "count", "datatype": "INT8", "shape": [2], "data": [1, 2]}
    error = refusal({"inputs": [tensor(), count]}, IMAGE, COUNT)
    assert error.members["field"] == "inputs[1].shape"
    assert "1 rows" in str(error.members["expected"])


@pytest.mark.parametrize("size", [23, 25, 0, -24, 24.0, True, "24", None])
def test_a_wrong_byte_count(size: object) -> None:
    one = tensor(data=..., parameters={"binary_data_size": size})
    error = refusal({"inputs": [one]}, tail=bytes(24))
    assert error.members["field"] == "inputs[0].parameters.binary_data_size"
    assert "24 bytes" in str(error.members["expected"])


def test_bytes_that_are_missing_or_left_over() -> None:
    one = tensor(data=..., parameters={"binary_data_size": 24})
    assert "20 bytes left" in refusal({"inputs": [one]}, tail=bytes(20)).detail
    assert "4 more bytes" in refusal({"inputs": [one]}, tail=bytes(28)).detail
    assert "3 more bytes" in refusal({"inputs": [tensor()]}, tail=bytes(3)).detail


def test_data_and_bytes_at_once() -> None:
    one = tensor(parameters={"binary_data_size": 24})
    assert refusal({"inputs": [one]}, tail=bytes(24)).members["field"] == "inputs[0].data"


def test_a_byte_that_is_no_boolean() -> None:
    mask = {
        "name": "mask",
        "datatype": "BOOL",
        "shape": [1, 1],
        "parameters": {"binary_data_size": 1},
    }
    assert refusal({"inputs": [mask]}, MASK, tail=b"\x02").members["received"] == "2"


def test_sizes_that_belong_together_must_agree() -> None:
    inputs = {
        "ids": np.zeros((1, 5), np.int64),
        "mask": np.zeros((1, 7), np.int64),
        "image": np.zeros((1, 7, 2)),
    }
    equal = ((("ids", 1), ("mask", 1)),)
    with pytest.raises(InvalidRequest) as error:
        v2.check_sizes(inputs, equal)
    assert "inputs.mask.shape" in error.value.detail and "[1, 7]" in error.value.detail
    assert "5 at dimension 1, as ids has" in str(error.value.members["expected"])
    v2.check_sizes(inputs | {"mask": inputs["ids"]}, equal)
    v2.check_sizes(inputs, ((("mask", 1), ("image", 1)),))


@pytest.mark.parametrize("word", ["true", "false"])
@pytest.mark.parametrize(
    "text",
    [
        '{"inputs":[{"data":[1,2,3,4,5,WORD],"name":"image","datatype":"FP32","shape":[1,2,3]}]}',
        '{"inputs":[{"name":"image","datatype":"FP32","shape":[1,2,3],"data":[WORD,2,3,4,5,6]}]}',
        '{"inputs":[{"d\\u0061ta":[[[1,2,3],[WORD,5,6]]],"name":"image","datatype":"FP32",'
        '"shape":[1,2,3]}],"outputs":[],"parameters":{"data":"\\"data\\""}}',
        '{"parameters":{"data":1},"inputs":[{"name":"image","data":[1,2,3,4,WORD,6],'
        '"datatype":"FP32","shape":[1,2,3]}]}',
    ],
)
def test_a_boolean_among_numbers_is_found_wherever_it_stands(text: str, word: str) -> None:
    specs = {IMAGE.name: IMAGE}
    assert v2.decode(text.replace("WORD", "4").encode(), None, specs, OUTPUTS).rows == 1
    with pytest.raises(InvalidRequest, match=r"inputs\[0\]\.data: expected numbers"):
        v2.decode(text.replace("WORD", word).encode(), None, specs, OUTPUTS)


def test_what_is_read_element_by_element_is_read_beside_the_loop_where_it_is_long() -> None:
    text = TensorSpec(name="text", datatype="BYTES", shape=(-1,))
    long, short = bytes(LONG_BYTES), bytes(LONG_BYTES - 1)
    for inputs, wanted in (
        (v2.Inputs((text,)), True),
        (v2.Inputs((IMAGE,), processed=(text,)), True),
        (v2.Inputs((IMAGE,)), False),
    ):
        assert v2.is_long(long, b"10", inputs) is wanted
        assert not v2.is_long(short, b"10", inputs)
        assert v2.is_long(long, None, inputs)
