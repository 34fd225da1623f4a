"""Tensors of the Open Inference Protocol v2 between the wire and numpy, as JSON and as bytes.

A binary tensor is viewed where it lies in the request's body, never parsed. What does not match
the model's inputs is refused with the field, what came, and what was expected.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import orjson

from gateway import byte_elements
from gateway.engines import NUMPY_TYPES, Tensor
from gateway.long_lists import LONG_ELEMENTS, LongList, written
from router.card import TensorSpec
from router.errors import InvalidRequest

BINARY_SIZE = "binary_data_size"


class Tail:
    """The bytes behind the JSON part of a body, handed out in order to the tensors that own them.

    Args:
        body: the whole body; tensors are views of it.
        start: where the JSON part ends; None when there is none but that.
    """

    def __init__(self, body: bytes, start: int | None) -> None:
        self._body = body
        self._binary = start is not None
        self._next = len(body) if start is None else start

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
        may_hold_bools: whether the text holds `true` or `false` anywhere. numpy takes a boolean
            among numbers for a number, and looking at each element costs as much as converting
            them all.

    Raises:
        InvalidRequest: its elements are not as many as the shape needs, or not of the datatype.
    """
    field = f"{field}.data"
    if isinstance(raw, LongList):
        tensor = raw.tensor(spec.datatype, shape)
        if tensor is not None:
            return tensor
        raw = raw.whole()
        may_hold_bools = True
    if not isinstance(raw, list):
        raise InvalidRequest(field, _kind(raw), "a list")
    count = math.prod(shape)
    code = _CODES.get(spec.datatype)
    if code is not None and len(raw) == count and not may_hold_bools:
        # The common case, flat and right: `struct` converts in one pass, and is as strict as the
        # slower way below, which finds out what is wrong. It also keeps the interpreter's lock: a
        # lane that took it between two requests would run each of them as a batch of its own.
        try:
            packed = struct.pack(f"<{count}{code}", *raw)
        except (struct.error, OverflowError):
            pass
        else:
            return np.frombuffer(packed, NUMPY_TYPES[spec.datatype]).reshape(shape)
    if spec.datatype == "BYTES":
        return _strings(field, raw, shape, count)
    try:
        found = np.array(raw)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            field, "a ragged or too deeply nested list", f"a list of shape {list(shape)}"
        ) from error
    if found.shape != shape and found.shape != (count,) and found.dtype != object:
        raise InvalidRequest(
            field,
            f"a list of shape {list(found.shape)}",
            f"{count} elements, flat or nested as {list(shape)}",
        )
    wanted = NUMPY_TYPES[spec.datatype]
    kind = "f" if spec.datatype == "BF16" else wanted.kind  # numpy knows it as no number
    good = {"b": "b", "u": "iu", "i": "iu", "f": "fiu"}[kind]
    mixed = kind in "iu" and found.dtype.kind == "f"
    if mixed and all(type(item) is int for item in _leaves(raw)):
        found = np.array(raw, dtype=object)  # no integer of numpy's holds both 2**63 and 0
    elif found.dtype.kind not in good or (may_hold_bools and kind != "b" and _has_bool(raw)):
        raise InvalidRequest(field, _odd_one(raw, good), f"{_ELEMENTS[kind]}, of {spec.datatype}")
    if kind in "iu":
        limits = np.iinfo(wanted)
        low, high = int(found.min()), int(found.max())
        if low < limits.min or high > limits.max:
            raise InvalidRequest(
                field,
                low if low < limits.min else high,
                f"{spec.datatype} values from {limits.min} to {limits.max}",
            )
        return found.astype(wanted).reshape(shape)
    if kind == "f" and wanted.itemsize < 8:
        with np.errstate(over="ignore"):
            tensor = found.astype(wanted).reshape(shape)
        if not _all_finite(tensor):
            raise InvalidRequest(
                field,
                float(np.abs(found).max()),
                f"{spec.datatype} values up to {float(ml_dtypes.finfo(wanted).max):g}",
            )
        return tensor
    return found.astype(wanted, copy=False).reshape(shape)


def _strings(field: str, raw: list[Any], shape: tuple[int, ...], count: int) -> Tensor:
    """The elements of BYTES, flat or nested as `shape`."""
    if len(raw) == count and not isinstance(raw[0], list):
        return byte_elements.from_leaves(field, raw, shape)
    level: list[Any] = raw
    for size in shape[1:]:
        fits = all(isinstance(item, list) and len(item) == size for item in level)
        level = [leaf for item in level for leaf in item] if fits else []
    if len(level) != count:
        raise InvalidRequest(
            field,
            f"a list of {len(raw)}",
            f"{count} elements, flat or nested as {list(shape)}",
        )
    return byte_elements.from_leaves(field, level, shape)


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


def _all_finite(tensor: Tensor) -> bool:
    return bool(np.isfinite(tensor).all())


def _kind(raw: object) -> str:
    if isinstance(raw, dict):
        return "an object"
    return "nothing" if raw is None else f"{raw!r}"


def _has_bool(raw: list[Any]) -> bool:
    return any(type(item) is bool for item in _leaves(raw))


def _odd_one(raw: list[Any], good: str) -> object:
    """The first element that is to blame."""
    allowed: tuple[type, ...] = (bool,) if good == "b" else (int, float) if "f" in good else (int,)
    return next((_kind(item) for item in _leaves(raw) if type(item) not in allowed), "numbers")


def _leaves(raw: list[Any]) -> list[Any]:
    # numpy took at most 64 levels, so this ends.
    level = raw
    while any(isinstance(item, list) for item in level):
        level = [leaf for item in level for leaf in (item if isinstance(item, list) else [item])]
    return level
