"""Long ModelInferRequests, whose raw tensors stay where they lie in the bytes that came.

protobuf copies them twice: out of the bytes, and out of the message. Here the top level of the
message is walked (protobuf, "Encoding"), the tensors are views, and protobuf parses the rest.
"""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import service_pb2 as pb

_RAW_FIELD: int = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES = 10


class LongRequest:
    """A ModelInferRequest, as far as it is read here.

    Attributes:
        raw_input_contents: views of the bytes that came.
    """

    def __init__(self, message: Any, raws: list[memoryview]) -> None:
        self._message = message
        self.raw_input_contents = raws

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


def parsed(raw: bytes) -> Any:
    """The ModelInferRequest that `raw` is; raises what protobuf raises where it is none."""
    cut = _cut(raw)
    if cut is None:
        return pb.ModelInferRequest.FromString(raw)
    rest, raws = cut
    return LongRequest(pb.ModelInferRequest.FromString(rest), raws)


def _cut(raw: bytes) -> tuple[bytes, list[memoryview]] | None:
    """`raw` without its raw tensors, and those; None where its top level is not plain."""
    view = memoryview(raw)
    rest: list[memoryview] = []
    raws: list[memoryview] = []
    position = 0
    while position < len(raw):
        begins = position
        tag, position = _varint(raw, position)
        kind = tag & 7
        if kind == _LENGTH:
            length, position = _varint(raw, position)
            if length < 0:
                return None
            begins_inside, position = position, position + length
        elif kind == _VARINT:
            _, position = _varint(raw, position)
        elif kind in _SIZES:
            position += _SIZES[kind]
        else:
            return None
        if tag < 0 or position > len(raw) or position <= begins:
            return None
        if kind == _LENGTH and tag >> 3 == _RAW_FIELD:
            raws.append(view[begins_inside:position])
        else:
            rest.append(view[begins:position])
    return b"".join(rest), raws


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, and where the next thing is: beyond the end, where it is none."""
    value = 0
    for number, byte in enumerate(raw[position : position + _VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value, position + number + 1
    return -1, len(raw) + 1
