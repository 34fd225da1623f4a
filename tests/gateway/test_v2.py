"""The v2 codec: what is written is read back, and each malformed body is refused by its field."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.wire import byte_elements, classification, v2, v2_answer
from router.card import TensorSpec
from router.errors import InvalidRequest

IMAGE = TensorSpec(name="image", datatype="FP32", shape=(-1, 2, 3))
MASK = TensorSpec(name="mask", datatype="BOOL", shape=(-1, -1))
COUNT = TensorSpec(name="count", datatype="INT8", shape=(-1,))
LOGITS = TensorSpec(name="logits", datatype="FP32", shape=(-1, 2))
LABEL = TensorSpec(name="label", datatype="INT64", shape=(-1,))
OUTPUTS = {"logits": LOGITS, "label": LABEL}


def decode(
    document: object, *specs: TensorSpec, tail: bytes = b"", length: int | None = None
) -> v2.Body:
    text = orjson.dumps(document)
    if tail and length is None:
        length = len(text)
    header = None if length is None else b"%d" % length
    return v2.decode(text + tail, header, {spec.name: spec for spec in specs or (IMAGE,)}, OUTPUTS)


def tensor(**changes: Any) -> dict[str, Any]:
    one = {"name": "image", "datatype": "FP32", "shape": [1, 2, 3], "data": [1, 2, 3, 4, 5, 6.5]}
    return {key: value for key, value in {**one, **changes}.items() if value is not ...}


def refusal(document: object, *specs: TensorSpec, **how: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        decode(document, *specs, **how)
    assert "\n" not in error.value.detail
    assert error.value.members["expected"]
    return error.value


_SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)


def _arrays(datatype: str) -> st.SearchStrategy[tuple[str, Tensor]]:
    """Tensors of a datatype. BYTES hold text, as JSON needs it."""
    if datatype == "BYTES":
        made = hnp.arrays(np.object_, _SHAPES, elements=st.text(max_size=5).map(str.encode))
    elif datatype == "BF16":
        finite = st.floats(-(2.0**100), 2.0**100, width=32)
        made = hnp.arrays(np.float32, _SHAPES, elements=finite).map(
            lambda array: array.astype(NUMPY_TYPES["BF16"])
        )
    else:
        elements = hnp.from_dtype(NUMPY_TYPES[datatype], allow_nan=False, allow_infinity=False)
        made = hnp.arrays(NUMPY_TYPES[datatype], _SHAPES, elements=elements)
    return made.map(lambda array: (datatype, array))


_ARRAYS = st.sampled_from(sorted(NUMPY_TYPES)).flatmap(_arrays)


def as_list(array: Tensor) -> Any:
    """`array` as JSON has it."""
    if array.dtype == object:
        return np.vectorize(bytes.decode, otypes=[object])(array).tolist()
    return array.astype("f4" if array.dtype == NUMPY_TYPES["BF16"] else array.dtype).tolist()


def as_bytes(array: Tensor) -> bytes:
    """`array` as binary data has it."""
    if array.dtype != object:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(one)) + one for one in array.reshape(-1))


@given(_ARRAYS, st.booleans(), st.integers(0, 7))
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


@given(_ARRAYS, st.booleans())
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


MALFORMED: dict[str, tuple[object, str]] = {
    "no object": ([], "body"),
    "unknown member": ({"input": []}, "body"),
    "no inputs": ({}, "inputs"),
    "inputs no list": ({"inputs": {}}, "inputs"),
    "none of them": ({"inputs": []}, "inputs"),
    "input no object": ({"inputs": [1]}, "inputs[0]"),
    "unknown input": ({"inputs": [tensor(name="imgae")]}, "inputs[0].name"),
    "name no text": ({"inputs": [tensor(name=["image"])]}, "inputs[0].name"),
    "name missing": ({"inputs": [tensor(name=...)]}, "inputs[0].name"),
    "input twice": ({"inputs": [tensor(), tensor()]}, "inputs[1].name"),
    "wrong datatype": ({"inputs": [tensor(datatype="FP64")]}, "inputs[0].datatype"),
    "datatype missing": ({"inputs": [tensor(datatype=...)]}, "inputs[0].datatype"),
    "wrong shape": ({"inputs": [tensor(shape=[1, 3, 2])]}, "inputs[0].shape"),
    "wrong rank": ({"inputs": [tensor(shape=[6])]}, "inputs[0].shape"),
    "no rows": ({"inputs": [tensor(shape=[0, 2, 3], data=[])]}, "inputs[0].shape"),
    "negative rows": ({"inputs": [tensor(shape=[-1, 2, 3])]}, "inputs[0].shape"),
    "half a row": ({"inputs": [tensor(shape=[1.0, 2, 3])]}, "inputs[0].shape"),
    "true rows": ({"inputs": [tensor(shape=[True, 2, 3])]}, "inputs[0].shape"),
    "shape no list": ({"inputs": [tensor(shape="1,2,3")]}, "inputs[0].shape"),
    "data missing": ({"inputs": [tensor(data=...)]}, "inputs[0].data"),
    "data no list": ({"inputs": [tensor(data="abc")]}, "inputs[0].data"),
    "too few elements": ({"inputs": [tensor(data=[1, 2])]}, "inputs[0].data"),
    "too many elements": ({"inputs": [tensor(data=[1] * 7)]}, "inputs[0].data"),
    "nested otherwise": ({"inputs": [tensor(data=[[1, 2], [3, 4], [5, 6]])]}, "inputs[0].data"),
    "ragged": ({"inputs": [tensor(data=[[[1, 2, 3], [4, 5]]])]}, "inputs[0].data"),
    "text": ({"inputs": [tensor(data=["1", 2, 3, 4, 5, 6])]}, "inputs[0].data"),
    "all text": ({"inputs": [tensor(data=["1"] * 6)]}, "inputs[0].data"),
    "null": ({"inputs": [tensor(data=[None, 2, 3, 4, 5, 6])]}, "inputs[0].data"),
    "object": ({"inputs": [tensor(data=[{}, 2, 3, 4, 5, 6])]}, "inputs[0].data"),
    "true among numbers": ({"inputs": [tensor(data=[True, 2, 3, 4, 5, 6])]}, "inputs[0].data"),
    "beyond FP32": ({"inputs": [tensor(data=[1e39, 2, 3, 4, 5, 6])]}, "inputs[0].data"),
    "id no text": ({"id": 1, "inputs": [tensor()]}, "id"),
    "parameters no object": ({"parameters": [], "inputs": [tensor()]}, "parameters"),
    "outputs no list": ({"outputs": {}, "inputs": [tensor()]}, "outputs"),
    "output no object": ({"outputs": ["label"], "inputs": [tensor()]}, "outputs[0]"),
    "unknown output": ({"outputs": [{"name": "x"}], "inputs": [tensor()]}, "outputs[0].name"),
    "output twice": (
        {"outputs": [{"name": "label"}] * 2, "inputs": [tensor()]},
        "outputs[1].name",
    ),
    "flag no flag": (
        {"parameters": {"binary_data_output": 1}, "inputs": [tensor()]},
        "parameters.binary_data_output",
    ),
    "classification": (
        {
            "outputs": [{"name": "logits", "parameters": {"classification": "3"}}],
            "inputs": [tensor()],
        },
        "outputs[0].parameters.classification",
    ),
    "shared memory": (
        {"inputs": [tensor(data=..., parameters={"shared_memory_region": "r"})]},
        "inputs[0].parameters.shared_memory_region",
    ),
    "a constraint of an input": (
        {"inputs": [tensor(parameters={"max_latency_ms": 40})]},
        "inputs[0].parameters.max_latency_ms",
    ),
    "a constraint of an output": (
        {"outputs": [{"name": "label", "parameters": {"priority": 1}}], "inputs": [tensor()]},
        "outputs[0].parameters.priority",
    ),
    "binary size without a header": (
        {"inputs": [tensor(data=..., parameters={"binary_data_size": 24})]},
        "inputs[0].parameters.binary_data_size",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_body_is_refused_by_its_field(case: str) -> None:
    document, field = MALFORMED[case]
    assert refusal(document).members["field"] == field


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


def test_every_missing_input_is_named() -> None:
    assert "no mask" in refusal({"inputs": [tensor()]}, IMAGE, MASK).detail


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


@pytest.mark.parametrize("header", [b"", b"-1", b"1e3", b"99999", b"\xb2", b"9" * 40, b" 5"])
def test_a_json_length_that_is_none(header: bytes) -> None:
    with pytest.raises(InvalidRequest) as error:
        v2.decode(orjson.dumps({"inputs": [tensor()]}), header, {"image": IMAGE}, OUTPUTS)
    assert error.value.members["field"] == "Inference-Header-Content-Length"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe{}",
        b'{"id": "\xe9"}',
        b'{"inputs": [NaN]}',
        b'{"inputs": [Infinity]}',
        b'{"inputs": [1e999]}',
        b'{"inputs": []} trailing',
        b"{'inputs': []}",
        b"[" * 100_000,
        b'{"inputs":' * 5000,
        b"nul",
        b"\x00" * 64,
    ],
)
def test_text_that_is_no_json(text: bytes) -> None:
    with pytest.raises(InvalidRequest) as error:
        v2.decode(text, None, {"image": IMAGE}, OUTPUTS)
    assert error.value.members["field"] == "body"
    assert "JSON object in UTF-8" in str(error.value.members["expected"])


def test_a_list_too_deep_for_a_tensor() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert refusal({"inputs": [tensor(data=deep)]}).members["field"] == "inputs[0].data"


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BF16", "BOOL"])
@pytest.mark.parametrize("length", [600, 5000, 60_000])  # whole, the wrong number, cut out
def test_one_long_text_does_not_make_every_element_long(datatype: str, length: int) -> None:
    spec = TensorSpec.model_validate({"name": "x", "datatype": datatype, "shape": (-1, 24, 25)})
    data: list[object] = ["x" * 40_000, *[""] * (length - 1)]
    for nested in (data, [data], [[data] * 2] * 2, [1, *data[1:]], [[*[1] * 600], data]):
        one = {"name": "x", "datatype": datatype, "shape": [1, 24, 25], "data": nested}
        text = orjson.dumps({"inputs": [one]})
        tracemalloc.start()
        try:
            with pytest.raises(InvalidRequest) as error:
                v2.decode(text, None, {"x": spec}, OUTPUTS)
            assert tracemalloc.get_traced_memory()[1] < 32 << 20
        finally:
            tracemalloc.stop()
        assert error.value.members["field"] == "inputs[0].data"
        assert len(error.value.detail) < 400


@pytest.mark.parametrize("member", ["shape", "data", "name", "datatype", "parameters"])
@pytest.mark.parametrize("levels", [50, 1000])
def test_a_member_that_is_deep_and_wide(member: str, levels: int) -> None:
    text = b"[" * levels + b"0," * 10_000 + b"0" + b"]" * levels
    one = orjson.dumps(tensor(**{member: ...}))[:-1] + b',"%b":%b}' % (member.encode(), text)
    processed = v2.Inputs([IMAGE], processed=[LABEL])
    for inputs in ({"image": IMAGE}, processed):
        with pytest.raises(InvalidRequest) as error:
            v2.decode(b'{"inputs":[%b]}' % one, None, inputs, OUTPUTS)
        assert str(error.value.members["field"]).startswith(f"inputs[0].{member}")
        assert len(error.value.detail) < 400


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_any_bytes_are_read_or_refused(content: bytes, length: int | None) -> None:
    header = None if length is None else b"%d" % length
    with pytest.raises(InvalidRequest):
        v2.decode(content, header, {"image": IMAGE}, OUTPUTS)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), _JSON)
def test_any_value_of_a_tensors_member_is_read_or_refused(member: str, value: object) -> None:
    try:
        decode({"inputs": [tensor(**{member: value})]})
    except InvalidRequest as error:
        assert str(error.members["field"]).startswith(("inputs", "body"))


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


def binary(shape: list[int], *, size: int | None = None, **members: Any) -> tuple[bytes, bytes]:
    """A body's JSON part that announces one binary image, and the header that tells its length."""
    size = 4 * int(np.prod(shape)) if size is None else size
    text = orjson.dumps(
        {"inputs": [tensor(shape=shape, data=..., parameters={"binary_data_size": size})]} | members
    )
    return text, b"%d" % len(text)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.booleans())
def test_what_a_json_part_said_before_holds_for_other_tensors(
    rows: list[int], as_bytes: bool
) -> None:
    specs, plain = v2.Inputs((IMAGE,)), {IMAGE.name: IMAGE}
    parameters = {"binary_data_output": as_bytes, "max_latency_ms": 5}
    for seed, count in enumerate((*rows, *rows)):
        text, header = binary([count, 2, 3], parameters=parameters)
        values = np.random.default_rng(seed).random((count, 2, 3), dtype=np.float32)
        body = text + values.tobytes()
        known = v2.decode(body, header, specs, OUTPUTS)
        anew = v2.decode(body, header, plain, OUTPUTS)
        np.testing.assert_array_equal(known.inputs["image"], values)
        assert known._replace(inputs={}) == anew._replace(inputs={})
        for length in (len(body) - 4, len(body) + 4):
            other = (body + bytes(4))[:length]
            with pytest.raises(InvalidRequest):
                v2.decode(other, header, specs, OUTPUTS)


def test_what_a_json_part_said_is_kept_for_that_model_alone() -> None:
    text, header = binary([1, 2, 3])
    body = text + bytes(24)
    specs = v2.Inputs((IMAGE,))
    first = v2.decode(body, header, specs, OUTPUTS)
    assert first.outputs == tuple((spec, False) for spec in OUTPUTS.values())
    others = {"logits": LOGITS}
    assert v2.decode(body, header, specs, others).outputs == ((LOGITS, False),)
    assert specs.layouts.find(text, len(body), others) is not None
    assert v2.decode(body, header, v2.Inputs((IMAGE,)), OUTPUTS) is not first


def test_elements_that_must_be_looked_at_are_looked_at_each_time() -> None:
    specs = v2.Inputs((MASK,))
    item = tensor(name="mask", datatype="BOOL", shape=[1, 2], data=...)
    text = orjson.dumps({"inputs": [{**item, "parameters": {"binary_data_size": 2}}]})
    v2.decode(text + b"\0\1", b"%d" % len(text), specs, OUTPUTS)
    with pytest.raises(InvalidRequest):
        v2.decode(text + b"\0\2", b"%d" % len(text), specs, OUTPUTS)


def test_layouts_that_are_kept_are_bounded() -> None:
    specs = v2.Inputs((IMAGE,))
    parts = [binary([count, 2, 3]) for count in range(1, 301)]
    for count, (text, header) in enumerate(parts, 1):
        v2.decode(text + bytes(24 * count), header, specs, OUTPUTS)
    found = [
        specs.layouts.find(text, len(text) + 24 * count, OUTPUTS)
        for count, (text, _) in enumerate(parts, 1)
    ]
    assert 0 < sum(layout is not None for layout in found) <= 64


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
