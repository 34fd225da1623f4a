"""Tensors of the Open Inference Protocol v2 between the wire and numpy, as JSON and as bytes.

A binary tensor is viewed where it lies in the request's body, never parsed. What does not match
the model's inputs is refused with the field, what came, and what was expected.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np
import orjson

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.wire import byte_elements
from gateway.wire.layouts import Place
from gateway.wire.long_lists import LONG_ELEMENTS, LongList, written
from router.card import Datatype, TensorSpec
from router.errors import InvalidRequest, shown

BINARY_SIZE = "binary_data_size"


class Tail:
    """The bytes behind the JSON part of a body, handed out in order to the tensors that own them.

    Args:
        body: the whole body; tensors are views of it.
        start: where the JSON part ends; None when there is none but that.

    Attributes:
        places: what was handed out.
    """

    def __init__(self, body: bytes, start: int | None) -> None:
        self._body = body
        self._binary = start is not None
        self._next = len(body) if start is None else start
        self.places: list[Place] = []

    def take(self, field: str, size: object, spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
        """The next `size` bytes as a tensor.

        Raises:
            InvalidRequest: they are not as many as the shape needs, or not there.
        """
        field = f"{field}.parameters.{BINARY_SIZE}"
        kind = NUMPY_TYPES[spec.datatype]
        count = math.prod(shape)
        if not self._binary:
            raise InvalidRequest(
                field, size, "no binary data without the header Inference-Header-Content-Length"
            )
        if kind.kind == "O":
            needed = size if type(size) is int and size >= 0 else -1
        else:
            needed = count * kind.itemsize
        if type(size) is not int or size != needed:
            expected = (
                "a whole number of bytes"
                if kind.kind == "O"
                else f"{needed} bytes for shape {list(shape)} of {spec.datatype}"
            )
            raise InvalidRequest(field, size, expected)
        start = self._next
        if start + needed > len(self._body):
            raise InvalidRequest(
                field, size, f"at most the {len(self._body) - start} bytes left in the body"
            )
        self._next = start + needed
        self.places.append(Place(spec.name, kind, count, shape, start))
        if kind.kind == "O":
            raw = memoryview(self._body)[start : start + needed]
            return byte_elements.unpack(field, raw, shape, count)
        return view(field, self._body, kind, shape, start)

    def finish(self) -> None:
        """Raises:
        InvalidRequest: bytes are left that no tensor owns.
        """
        left = len(self._body) - self._next
        if left:
            raise InvalidRequest("body", f"{left} more bytes", "no bytes behind the last tensor")


def view(
    field: str, body: bytes, kind: np.dtype[Any], shape: tuple[int, ...], start: int
) -> Tensor:
    """The bytes of `body` from `start` on as a tensor, not copied; they must be there.

    Raises:
        InvalidRequest: a boolean is neither 0 nor 1.
    """
    count = math.prod(shape)
    if kind.kind == "b":
        bools = np.frombuffer(body, np.uint8, count, start)
        if bools.max() > 1:
            raise InvalidRequest(field, int(bools.max()), "bytes of 0 or 1 for BOOL")
        return bools.view(kind).reshape(shape)
    # The JSON part has any length, so the view may start at an odd address: engines, which
    # copy what they may not write to in any case, are told so by its flags.
    return np.frombuffer(body, kind, count, start).reshape(shape)


def shape_of(field: str, raw: object, spec: TensorSpec) -> tuple[int, ...]:
    """The shape that a tensor states, which must be what `spec` allows.

    Raises:
        InvalidRequest: it is not.
    """
    fits = (
        isinstance(raw, list)
        and len(raw) == len(spec.shape)
        and all(
            type(size) is int and (size >= 1 if wanted == -1 else size == wanted)
            for size, wanted in zip(raw, spec.shape, strict=True)
        )
    )
    if not fits:
        raise InvalidRequest(
            f"{field}.shape", raw, f"{list(spec.shape)}, where -1 is any size from 1"
        )
    return tuple(raw)  # type: ignore[arg-type]


def from_json(
    field: str, raw: object, spec: TensorSpec, shape: tuple[int, ...], *, may_hold_bools: bool
) -> Tensor:
    """A tensor written as JSON, flat or nested.

    Args:
        may_hold_bools: whether the text holds `true` or `false` anywhere. `struct` takes a boolean
            among numbers for a number, and looking at each element costs as much as converting
            them all.

    Raises:
        InvalidRequest: its elements are not as many as the shape needs, or not of the datatype, or
            more than memory is free for.
    """
    field = f"{field}.data"
    try:
        if isinstance(raw, LongList):
            tensor = raw.tensor(spec.datatype, shape)
            if tensor is not None:
                return tensor
            raw = raw.whole()
            may_hold_bools = True
        if not isinstance(raw, list):
            raise InvalidRequest(field, _kind(raw), "a list")
        return _from_list(field, raw, spec.datatype, shape, may_hold_bools)
    except MemoryError as error:
        raise InvalidRequest(
            field, f"a list of {math.prod(shape)}", "no more than memory is free for"
        ) from error


def _from_list(
    field: str, raw: list[Any], datatype: Datatype, shape: tuple[int, ...], may_hold_bools: bool
) -> Tensor:
    count = math.prod(shape)
    flat = len(raw) == count and type(raw[0]) is not list
    leaves = raw if flat else _flattened(field, raw, shape, count)
    if datatype == "BYTES":
        return byte_elements.from_leaves(field, leaves, shape)
    code = _CODES.get(datatype)
    if code is not None and not (may_hold_bools and bool in set(map(type, leaves))):
        # The common case: `struct` converts in one pass, and is as strict as what follows, which
        # finds out what is wrong. It also keeps the interpreter's lock: a lane that took it
        # between two requests would run each of them as a batch of its own.
        try:
            packed = struct.pack(f"<{count}{code}", *leaves)
        except (struct.error, OverflowError):
            pass
        else:
            return np.frombuffer(packed, NUMPY_TYPES[datatype]).reshape(shape)
    # numpy must not see what is no number: it gives every element the room of the longest text.
    wanted = NUMPY_TYPES[datatype]
    kind = "f" if datatype == "BF16" else wanted.kind  # numpy knows it as no number
    allowed = _ALLOWED[kind]
    if not allowed.issuperset(map(type, leaves)):
        odd = next(leaf for leaf in leaves if type(leaf) not in allowed)
        raise InvalidRequest(field, _kind(odd), f"{_ELEMENTS[kind]}, of {datatype}")
    if kind == "b":
        return np.array(leaves, wanted).reshape(shape)
    if kind in "iu":
        limits = np.iinfo(wanted)
        raise InvalidRequest(
            field,
            next(leaf for leaf in leaves if not limits.min <= leaf <= limits.max),
            f"{datatype} values from {limits.min} to {limits.max}",
        )
    found = np.array(leaves, np.float64)
    with np.errstate(over="ignore"):
        tensor = found.astype(wanted).reshape(shape)
    if not np.isfinite(tensor).all():
        raise InvalidRequest(
            field,
            float(np.abs(found).max()),
            f"{datatype} values up to {float(ml_dtypes.finfo(wanted).max):g}",
        )
    return tensor


def _flattened(field: str, raw: list[Any], shape: tuple[int, ...], count: int) -> list[Any]:
    """The elements of a list that is nested as `shape`; each level is looked at before the next,
    so that this takes no more room than the elements themselves.

    Raises:
        InvalidRequest: it is nested otherwise.
    """
    level = raw
    for size in shape[1:]:
        fits = all(type(item) is list and len(item) == size for item in level)
        level = list(chain.from_iterable(level)) if fits else []
    if len(level) != count:
        found: list[int] = []
        first: Any = raw
        while type(first) is list and len(found) <= len(shape):
            found.append(len(first))
            first = first[0] if first else None
        raise InvalidRequest(
            field,
            "a ragged list" if found == list(shape) else f"a list of shape {found}",
            f"{count} elements, flat or nested as {list(shape)}",
        )
    return level


def to_json(spec: TensorSpec, tensor: Tensor) -> Tensor | list[str] | orjson.Fragment:
    """What orjson writes as the flat list of `tensor`; NaN and infinities, which JSON does not
    know, become null.

    Raises:
        InvalidRequest: BYTES that are no text.
    """
    if spec.datatype == "BYTES":
        return byte_elements.to_text(f"outputs.{spec.name}", tensor)
    if spec.datatype == "BF16":
        tensor = tensor.astype(np.float32)
    flat = np.ascontiguousarray(tensor).reshape(-1)
    return flat if flat.size < LONG_ELEMENTS else written(flat)


def to_bytes(spec: TensorSpec, tensor: Tensor) -> bytes:
    """A tensor as binary data."""
    if spec.datatype == "BYTES":
        return byte_elements.pack(tensor)
    return tensor.astype(NUMPY_TYPES[spec.datatype], copy=False).tobytes()


def dumps(value: Mapping[str, Any]) -> bytes:
    """JSON of a value that may hold numpy arrays."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


_ELEMENTS = {
    "b": "true or false",
    "u": "whole numbers",
    "i": "whole numbers",
    "f": "numbers",
}
_ALLOWED: Mapping[str, frozenset[type]] = {
    "b": frozenset((bool,)),
    "u": frozenset((int,)),
    "i": frozenset((int,)),
    "f": frozenset((int, float)),
}


# Format characters of `struct`, by datatype.
_CODES = {
    "INT8": "b",
    "UINT8": "B",
    "INT16": "h",
    "UINT16": "H",
    "INT32": "i",
    "UINT32": "I",
    "INT64": "q",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


def _kind(raw: object) -> str:
    if isinstance(raw, dict):
        return "an object"
    return "nothing" if raw is None else shown(raw)
