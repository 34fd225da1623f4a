"""A request as protobuf is the request that it would be as JSON and bytes, for every datatype."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from gateway.engines import NUMPY_TYPES
from gateway.rpc import long_messages, messages
from gateway.wire import v2
from gateway.wire.long_lists import LONG_BYTES, LONG_ELEMENTS
from gateway.wire.tensors import to_bytes
from router.card import TensorSpec
from router.errors import InvalidRequest

CONTENTS = {
    "BOOL": ("bool_contents", st.booleans()),
    "INT8": ("int_contents", st.integers(-128, 127)),
    "INT16": ("int_contents", st.integers(-(2**15), 2**15 - 1)),
    "INT32": ("int_contents", st.integers(-(2**31), 2**31 - 1)),
    "INT64": ("int64_contents", st.integers(-(2**63), 2**63 - 1)),
    "UINT8": ("uint_contents", st.integers(0, 255)),
    "UINT16": ("uint_contents", st.integers(0, 2**16 - 1)),
    "UINT32": ("uint_contents", st.integers(0, 2**32 - 1)),
    "UINT64": ("uint64_contents", st.integers(0, 2**64 - 1)),
    "FP32": ("fp32_contents", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "FP64": ("fp64_contents", st.floats(allow_nan=False, allow_infinity=False)),
    "BYTES": ("bytes_contents", st.text(max_size=8)),
}
KEYS = st.sampled_from(["max_latency_ms", "min_accuracy", "variant", "timeout", "other"])
PARAMETERS = st.dictionaries(
    KEYS,
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5),
              st.floats(allow_nan=False, allow_infinity=False)),
    max_size=3,
)  # fmt: skip
KINDS = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}


def specs(datatype: str, *shape: int) -> dict[str, TensorSpec]:
    return {"given": TensorSpec(name="given", datatype=datatype, shape=shape or (-1, 2))}  # type: ignore[arg-type]


def message_of(
    datatype: str, shape: list[int], data: list[Any], parameters: dict[str, Any]
) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m", id="seven")
    for key, value in parameters.items():
        setattr(message.parameters[key], KINDS[type(value)], value)
    one = message.inputs.add(name="given", datatype=datatype, shape=shape)
    elements = [item.encode() for item in data] if datatype == "BYTES" else data
    getattr(one.contents, CONTENTS[datatype][0]).extend(elements)
    return message


@pytest.mark.parametrize("datatype", CONTENTS)
@settings(max_examples=25)
@given(data=st.data(), parameters=PARAMETERS)
def test_contents_are_read_as_json_is(
    datatype: str, data: st.DataObject, parameters: dict[str, Any]
) -> None:
    rows = data.draw(st.integers(1, 3))
    elements = data.draw(st.lists(CONTENTS[datatype][1], min_size=2 * rows, max_size=2 * rows))
    known = specs(datatype)
    got = messages.decode(message_of(datatype, [rows, 2], elements, parameters), known, known)
    document = {
        "id": "seven",
        "parameters": parameters,
        "inputs": [{"name": "given", "datatype": datatype, "shape": [rows, 2], "data": elements}],
    }
    expected = v2.decode(json.dumps(document).encode(), None, known, known)
    assert (got.id, got.rows, got.outputs) == (expected.id, expected.rows, expected.outputs)
    assert got.parameters == {"binary_data_output": False, **parameters}
    assert got.inputs["given"].dtype == expected.inputs["given"].dtype
    np.testing.assert_array_equal(got.inputs["given"], expected.inputs["given"])

    raw = to_bytes(known["given"], expected.inputs["given"])
    message = message_of(datatype, [rows, 2], [], parameters)
    message.raw_input_contents.append(raw)
    by_bytes = messages.decode(message, known, known)
    np.testing.assert_array_equal(by_bytes.inputs["given"], expected.inputs["given"])
    assert by_bytes.outputs == ((known["given"], True),)


@pytest.mark.parametrize("datatype", CONTENTS)
@pytest.mark.parametrize("raw", [True, False])
def test_answers_hold_what_was_computed(datatype: str, raw: bool) -> None:
    known = specs(datatype)
    tensor = np.array([[0, 1], [1, 0]]).astype(NUMPY_TYPES[datatype])
    if datatype == "BYTES":
        tensor = np.array([[b"", b"\xff"], [b"a", b"bc"]], np.object_)
    body = v2.Body("seven", {}, {}, 2, ((known["given"], raw),))
    answer = messages.encode(body, "m", "int8", {"given": tensor}, None)
    assert (answer.id, answer.model_name, answer.model_version) == ("seven", "m", "int8")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("given", datatype, [2, 2])
    if raw:
        assert list(answer.raw_output_contents) == [to_bytes(known["given"], tensor)]
    else:
        elements = getattr(output.contents, CONTENTS[datatype][0])
        assert list(elements) == tensor.reshape(-1).tolist()


def test_an_answer_is_raw_where_a_datatype_has_no_other_form() -> None:
    half, whole = specs("FP16")["given"], TensorSpec(name="n", datatype="FP32", shape=(-1,))
    tensors = {"given": np.ones((1, 2), np.float16), "n": np.ones(1, np.float32)}
    body = v2.Body(None, {}, {}, 1, ((half, False), (whole, False)))
    answer = messages.encode(body, "m", "fp32", tensors, None)
    assert [len(raw) for raw in answer.raw_output_contents] == [4, 4]
    assert not any(output.HasField("contents") for output in answer.outputs)


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "UINT16", "INT64", "FP32", "FP64", "BYTES"])
def test_long_contents_are_the_same(datatype: str) -> None:
    rows = LONG_ELEMENTS // 2 + 5
    data = [str(n % 7) if datatype == "BYTES" else n % 2 for n in range(2 * rows)]
    data = [bool(item) for item in data] if datatype == "BOOL" else data
    known = specs(datatype)
    got = messages.decode(message_of(datatype, [rows, 2], data, {}), known, known).inputs["given"]
    elements = [item.encode() for item in data] if datatype == "BYTES" else data
    assert got.dtype == NUMPY_TYPES[datatype]
    assert got.shape == (rows, 2)
    assert got.reshape(-1).tolist() == elements


@pytest.mark.parametrize("elements", [2, LONG_ELEMENTS])
@pytest.mark.parametrize(
    ("shape_rows", "last", "received"),
    [(1.0, 128, "128"), (2.0, 0, "list of shape"), (0.5, 0, "list of shape")],
)
def test_contents_that_do_not_fit(
    elements: int, shape_rows: float, last: int, received: str
) -> None:
    data = [0] * (elements - 1) + [last]
    message = message_of("INT8", [math.ceil(shape_rows * elements), 1], data, {})
    known = specs("INT8", -1, 1)
    with pytest.raises(InvalidRequest) as caught:
        messages.decode(message, known, known)
    assert caught.value.members["field"] == "inputs[0].contents"
    assert received in str(caught.value.members["received"])
    assert caught.value.detail.startswith("inputs[0].contents: expected ")


def as_parsed(message: Any) -> tuple[bytes, list[bytes]]:
    """A message without its raw tensors, and those."""
    rest = pb.ModelInferRequest()
    rest.CopyFrom(getattr(message, "_message", message))
    del rest.raw_input_contents[:]
    raws = [bytes(raw) for raw in message.raw_input_contents]
    return rest.SerializeToString(deterministic=True), raws


@given(
    raws=st.lists(st.binary(max_size=300), max_size=4),
    parameters=PARAMETERS,
    more=st.binary(max_size=20),
    damage=st.one_of(st.none(), st.tuples(st.integers(0, 500), st.integers(0, 255))),
)
@example(raws=[], parameters={}, more=b":", damage=None)
def test_a_long_message_is_the_message_that_protobuf_reads(
    raws: list[bytes], parameters: dict[str, Any], more: bytes, damage: tuple[int, int] | None
) -> None:
    message = message_of("INT32", [1, 2], [1, 2], parameters)
    message.raw_input_contents.extend(raws)
    raw = bytearray(message.SerializeToString() + more)
    if damage is not None:
        raw[damage[0] % len(raw)] = damage[1]
    try:
        expected = pb.ModelInferRequest.FromString(bytes(raw))
    except DecodeError:
        with pytest.raises(DecodeError):
            long_messages.parsed(bytes(raw))
        return
    assert as_parsed(long_messages.parsed(bytes(raw))) == as_parsed(expected)


def test_tensors_of_a_long_message_are_views_of_what_came() -> None:
    message = message_of("FP32", [LONG_BYTES, 2], [], {})
    message.raw_input_contents.append(bytes(8 * LONG_BYTES))
    raw = message.SerializeToString()
    known = specs("FP32")
    got = messages.decode(messages.parsed(pb.ModelInferRequest, raw), known, known)
    assert np.shares_memory(got.inputs["given"], np.frombuffer(raw, np.uint8))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(raw: bytes) -> None:
    try:
        message = messages.parsed(pb.ModelInferRequest, raw)
        messages.decode(message, specs("FP32"), specs("FP32"))
    except InvalidRequest as error:
        assert error.members["field"]
