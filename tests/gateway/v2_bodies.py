"""Bodies of v2 requests for the codec's tests, whole and tampered with."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.wire import v2
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


ARRAYS = st.sampled_from(sorted(NUMPY_TYPES)).flatmap(_arrays)


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
