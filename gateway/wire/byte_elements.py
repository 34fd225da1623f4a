"""Elements of BYTES between the wire and numpy: an object array of Python's `bytes`.

In binary each element is its length, four bytes little-endian, and then itself (binary tensor data
extension, "Binary Tensor Request"). In JSON it is text in UTF-8: JSON has no other strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.engines import Tensor
from router.errors import InvalidRequest, shown

_LENGTH_BYTES = 4


def unpack(field: str, raw: memoryview, shape: tuple[int, ...], count: int) -> Tensor:
    """`count` elements, which must fill `raw`.

    Raises:
        InvalidRequest: there are more or fewer, or one is longer than what is left.
    """
    size = len(raw)
    if count * _LENGTH_BYTES > size:
        raise InvalidRequest(
            field,
            size,
            f"at least {count * _LENGTH_BYTES} bytes, {_LENGTH_BYTES} for the length of each of "
            f"{count} BYTES elements",
        )
    elements: list[bytes] = []
    position = 0
    for number in range(count):
        begins = position + _LENGTH_BYTES
        length = int.from_bytes(raw[position:begins], "little")
        position = begins + length
        if begins > size or position > size:
            raise InvalidRequest(
                field, size, f"element {number} whole, of {length} bytes behind its length"
            )
        elements.append(bytes(raw[begins:position]))
    if position != size:
        raise InvalidRequest(field, size, f"{position} bytes, which {count} BYTES elements take")
    return as_tensor(elements, shape)


def pack(tensor: Tensor) -> bytes:
    """What `unpack` reads."""
    parts: list[bytes] = []
    for element in tensor.reshape(-1).tolist():
        parts.append(len(element).to_bytes(_LENGTH_BYTES, "little"))
        parts.append(element)
    return b"".join(parts)


def from_leaves(field: str, leaves: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    """Elements as JSON writes them, text, or as other protocols do, bytes.

    Raises:
        InvalidRequest: one is neither.
    """
    elements: list[bytes] = []
    for leaf in leaves:
        if isinstance(leaf, str):
            elements.append(leaf.encode())
        elif isinstance(leaf, bytes):
            elements.append(leaf)
        else:
            came = "nothing" if leaf is None else shown(leaf)[:40]
            raise InvalidRequest(field, came, "text, of BYTES")
    return as_tensor(elements, shape)


def to_text(field: str, tensor: Tensor) -> list[str]:
    """What JSON writes as the flat list of `tensor`.

    Raises:
        InvalidRequest: an element is not UTF-8, which only a binary answer can hold.
    """
    try:
        return [element.decode() for element in tensor.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            field, "JSON", "binary_data true: an element of the answer is not UTF-8"
        ) from error


def as_tensor(elements: Sequence[bytes], shape: tuple[int, ...]) -> Tensor:
    """Elements in row-major order as a tensor of `shape`."""
    tensor = np.empty(len(elements), np.object_)
    tensor[:] = elements
    return tensor.reshape(shape)
