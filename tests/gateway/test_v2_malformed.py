"""The v2 codec refuses each malformed body by its field, and briefly, however large it is."""

from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import v2
from router.card import TensorSpec
from router.errors import InvalidRequest
from tests.gateway.v2_bodies import (
    IMAGE,
    LABEL,
    MASK,
    OUTPUTS,
    decode,
    refusal,
    tensor,
)

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


def test_every_missing_input_is_named() -> None:
    assert "no mask" in refusal({"inputs": [tensor()]}, IMAGE, MASK).detail


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


@pytest.mark.parametrize("where", ["inputs", "outputs"])
@pytest.mark.parametrize("key", ["timeout", "min_acuracy", "Min-Accuracy", "max_latency"])
def test_a_constraint_among_a_tensor_s_parameters_is_refused_however_it_is_spelt(
    where: str, key: str
) -> None:
    document: dict[str, Any] = {"inputs": [tensor()], "outputs": [{"name": "logits"}]}
    document[where][0]["parameters"] = {"their_own": 1}
    assert decode(document).rows == 1
    document[where][0]["parameters"] = {key: 1}
    assert f"{where}[0].parameters.{key}" in refusal(document).detail
