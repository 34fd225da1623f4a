"""Protobuf's encoding, as far as spans need it: https://protobuf.dev/programming-guides/encoding/.

OpenTelemetry's own encoder takes some 20 µs for a span, most of them for objects that are thrown
away; the bytes of most of a span are the same from request to request, and are kept.
"""

from __future__ import annotations

import struct
from typing import Any

# The fields of `AnyValue` and `KeyValue` in opentelemetry/proto/common/v1/common.proto.
_TEXT, _BOOL, _INT, _DOUBLE, _ARRAY = 1, 2, 3, 4, 5
_KEY, _VALUE = 1, 2
_BITS_64 = (1 << 64) - 1
_double = struct.Struct("<d").pack


def varint(number: int) -> bytes:
    """A whole number; one below 0 as its two's complement of 64 bits."""
    return _SMALL[number] if 0 <= number < len(_SMALL) else _varint(number & _BITS_64)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


# Lengths of all that spans hold.
_SMALL = [_varint(number) for number in range(2048)]


def piece(field: int, raw: bytes) -> bytes:
    """A field that holds bytes, text or a message."""
    return b"%b%b%b" % (varint(field << 3 | 2), varint(len(raw)), raw)


def text(field: int, said: str) -> bytes:
    """A field that holds text; what cannot be said in UTF-8 is replaced."""
    return piece(field, said.encode("utf-8", "replace"))


def number(field: int, value: int) -> bytes:
    """A field that holds a whole number."""
    return varint(field << 3) + varint(value)


def attribute(field: int, key: str, value: Any) -> bytes:
    """A field that holds an attribute: text, a truth, a number, or several of those."""
    return piece(field, text(_KEY, key) + piece(_VALUE, _any(value)))


def double_prefix(field: int, key: str) -> bytes:
    """An attribute that holds a float, up to the eight bytes of `double`, which follow."""
    return attribute(field, key, 0.0)[:-8]


def double(value: float) -> bytes:
    """The eight bytes of a float."""
    return _double(value)


def _any(value: Any) -> bytes:
    if isinstance(value, str):
        return text(_TEXT, value)
    if isinstance(value, bool):
        return number(_BOOL, value)
    if isinstance(value, int):
        return number(_INT, value)
    if isinstance(value, float):
        return varint(_DOUBLE << 3 | 1) + _double(value)
    return piece(_ARRAY, b"".join(piece(1, _any(each)) for each in value))
