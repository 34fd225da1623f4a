"""Long lists of numbers: read in pieces, they are what the usual way reads, or are left to it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines import NUMPY_TYPES
from gateway.wire import long_lists, v2, v2_answer
from router.card import TensorSpec
from router.errors import InvalidRequest

ROWS, WIDTH = 5, 1000


def spec(datatype: str = "FP32", *shape: int) -> TensorSpec:
    return TensorSpec.model_validate(
        {"name": "x", "datatype": datatype, "shape": (-1, *(shape or (WIDTH,)))}
    )


def decode(text: bytes, of: TensorSpec) -> v2.Body:
    return v2.decode(text, None, {"x": of}, {})


def request(data: object, datatype: str = "FP32", **members: Any) -> bytes:
    one = {"name": "x", "shape": [ROWS, WIDTH], "datatype": datatype, "data": data}
    return orjson.dumps({"inputs": [one], **members})


@pytest.fixture(autouse=True)
def everything_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_lists, "_LEAST_BYTES", 8)
    monkeypatch.setattr(long_lists, "_PIECE_BYTES", 64)
    monkeypatch.setattr(long_lists, "_PAUSE_S", 0.0)
    monkeypatch.setattr(v2, "LONG_BYTES", 0)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("datatype", sorted(set(NUMPY_TYPES) - {"BYTES", "BOOL"}))
def test_the_same_numbers_as_the_usual_way(
    datatype: str, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).random((ROWS, WIDTH)) * 100
    if datatype[0] in "IU":
        values = values.astype(int)
    text = request((values if nested else values.reshape(-1)).tolist(), datatype)
    used = []
    monkeypatch.setattr(long_lists.LongList, "whole", lambda _: used.append(1))
    found = decode(text, spec(datatype)).inputs["x"]
    assert not used, "it was read whole"
    monkeypatch.undo()
    np.testing.assert_array_equal(found, decode(text, spec(datatype)).inputs["x"])
    assert found.shape == (ROWS, WIDTH)


_TEXT = st.lists(
    st.sampled_from(
        ['"data"', ":", "[", "]", "{", "}", ",", "1", "2.5", "-3e1", "true", "null", " ", '"x"',
         '"inputs"', '"a\\"data\\":[1,2,3,4,5]"', "1,2,3,4,5,6,7,8"]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@given(_TEXT)
def test_any_text_is_the_same_document(text: str) -> None:
    raw = b'{"inputs":[{"name":"x","data":[' + text.encode() + b']}],"more":' + b"1}"
    try:
        expected = json.loads(raw)
    except ValueError:
        with pytest.raises((orjson.JSONDecodeError, InvalidRequest)):
            _made_whole(long_lists.parse(raw))
        return
    assert _made_whole(long_lists.parse(raw)) == expected


def _made_whole(found: Any) -> Any:
    for item in found.get("inputs", ()) if isinstance(found, dict) else ():
        if isinstance(item, dict) and isinstance(item.get("data"), long_lists.LongList):
            item["data"] = item["data"].whole()
    return found


@pytest.mark.parametrize(
    "data",
    [
        b"[1,2,3,4,5,6]", b"[[1,2,3],[4,5,6]]", b" [ [1 , 2,3] ,\n[4,5,6 ] ] ",
        b"[1[2,3],[4,5,6]]", b"[[1,2],[3,4,5,6]]", b"[[1,2,3,4,5,6]]", b"[1,2,3,4,5]",
        b"[[1,2,3],[4,5,true]]", b"[1,2,3,4,5,true]", b"[1,2,3,4,5,null]",
        b"[1,2,3,4,5,]", b"[1,,3,4,5,6]",
        b"[1,2,3,4,5,6]]", b"[[1,2,3],[4,5,6]", b"[1 2,3,4,5,6,7]", b"[01,2,3,4,5,6]",
        b"[1,2,3,4,5,1e999]", b"[NaN,2,3,4,5,6]", b"[1,2,3,4,5,6],7", b"][1,2,3,4,5,6]",
    ],
)  # fmt: skip
def test_the_same_answer_as_the_usual_way(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'{"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data":' + data + b"}]}"

    def told() -> object:
        try:
            return decode(text, spec("FP32", 3)).inputs["x"].tolist()
        except InvalidRequest as error:
            return error.members["field"]

    found = told()
    monkeypatch.setattr(v2, "LONG_BYTES", 1 << 30)
    assert found == told()


def test_what_stands_elsewhere_stays_there() -> None:
    text = request([0] * ROWS * WIDTH, parameters={"data": [1.5] * 20}, id='"data":[1,2,3,4]')
    body = decode(text, spec())
    assert body.parameters == {"data": [1.5] * 20}
    assert body.id == '"data":[1,2,3,4]'
    assert body.inputs["x"].shape == (ROWS, WIDTH)


def test_a_long_answer_is_the_same_as_a_short_one() -> None:
    values = np.random.default_rng(1).random((20, 1000), np.float32)
    values[3, 4] = np.nan
    assert values.size > long_lists.LONG_ELEMENTS
    outputs = ((spec(), False),)
    assert v2_answer.is_long({"x": values}, outputs)
    body, _ = v2_answer.encode({}, {"x": values}, outputs)
    flat = orjson.loads(body)["outputs"][0]["data"]
    assert flat[3004] is None
    assert orjson.dumps(values.reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY) in body


@pytest.mark.parametrize("nested", [True, False])
def test_no_piece_is_long_and_all_make_way(nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    row = [0.123456789] * WIDTH
    text = request([row] * 1000 if nested else row * 1000).replace(b"[5,1000]", b"[1000,1000]")
    assert len(text) > 10 << 20
    pauses: list[float] = []
    monkeypatch.setattr(long_lists.time, "sleep", pauses.append)
    assert decode(text, spec()).inputs["x"].shape == (1000, 1000)
    pieces = len(text) // (65 << 10)
    assert len(pauses) >= pieces * (2 if nested else 1)
    assert min(pauses) > 0
    values = np.ones((100, 1000), np.float32)
    pauses.clear()
    v2_answer.encode({}, {"x": values}, ((spec(), False),))
    assert len(pauses) > 10
