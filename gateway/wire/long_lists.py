"""Long lists of numbers in JSON, read and written piece by piece, beside the event loop.

The interpreter's lock is held while a text is parsed, whichever thread does it: twenty megabytes
at once would stop every other request for a tenth of a second. So a long list is cut out of the
text before that is parsed, and read in pieces with a pause after each. Which also takes half the
time, because a piece stays in the processor's cache.

What is not plainly a list of numbers of the shape that was stated is left to the usual way, which
knows what to say about it.
"""

from __future__ import annotations

import math
import secrets
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from gateway.engines import NUMPY_TYPES, Tensor
from router.errors import InvalidRequest

# A text that is shorter takes less than a millisecond, and is not worth a thread's attention.
LONG_BYTES = 128 << 10
LONG_ELEMENTS = 16 << 10

_LEAST_BYTES = 32 << 10
_PIECE_BYTES = 64 << 10
_PIECE_ELEMENTS = 8 << 10
# Long enough that a thread which waits for the interpreter gets it.
_PAUSE_S = 1e-5

_KEY = b'"data"'
_SPACE = b" \t\r\n"
_OF_NUMBERS = b"0123456789+-.eE" + _SPACE
_OPEN = bytes.maketrans(b"[]", b"  ")
# Nobody who does not know it can write what stands for a list.
_STAND_IN = "long list " + secrets.token_hex(16)

# Format characters of `struct`, by datatype; BF16 is rounded from FP32.
_CODES = {
    "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I",
    "INT64": "q", "UINT64": "Q", "FP16": "e", "BF16": "f", "FP32": "f", "FP64": "d",
}  # fmt: skip


class LongList:
    """A list that was cut out: where it begins and ends in its text."""

    __slots__ = ("_begins", "_ends", "_text")

    def __init__(self, text: bytes, begins: int, ends: int) -> None:
        self._text, self._begins, self._ends = text, begins, ends

    def whole(self) -> Any:
        """The list as the usual way reads it.

        Raises:
            InvalidRequest: it is none, and so the body that it was in.
        """
        text = self._text[self._begins : self._ends]
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise not_json(text, error) from error

    def tensor(self, datatype: str, shape: tuple[int, ...]) -> Tensor | None:
        """The list as a tensor, or None where it is not plainly one, flat or nested as `shape`."""
        code = _CODES.get(datatype)
        count = math.prod(shape)
        # Each element takes two bytes, with its comma: a shape that is far off ends here.
        if code is None or count * 2 > self._ends - self._begins + 1 or not self._nested_as(shape):
            return None
        packed: list[bytes] = []
        for piece in self._pieces():
            if b"u" in piece or b"a" in piece:  # true, false and null are no numbers
                return None
            try:
                numbers = orjson.loads(b"[%b]" % piece.translate(_OPEN))
                packed.append(struct.pack(f"<{len(numbers)}{code}", *numbers))
            except (orjson.JSONDecodeError, struct.error, OverflowError):
                return None
        tensor = np.frombuffer(b"".join(packed), "<f4" if code == "f" else NUMPY_TYPES[datatype])
        if datatype == "BF16":
            tensor = tensor.astype(NUMPY_TYPES[datatype])
            if not np.isfinite(tensor).all():
                return None
        return tensor.reshape(shape) if tensor.size == count else None

    def _nested_as(self, shape: tuple[int, ...]) -> bool:
        last = self._ends - 1
        if self._text.find(b"[", self._begins + 1, last) < 0:
            return self._text.find(b"]", self._begins, last) < 0
        expected = b"," * (shape[-1] - 1)
        for size in reversed(shape[:-1]):
            expected = b",".join([b"[%b]" % expected] * size)
        found = b",".join([piece.translate(None, _OF_NUMBERS) for piece in self._pieces()])
        return found == b"[%b]" % expected

    def _pieces(self) -> Iterator[bytes]:
        """The text in pieces, without the commas between them, and with a pause after each."""
        position = self._begins
        while True:
            comma = self._text.find(b",", position + _PIECE_BYTES, self._ends)
            if comma < 0:
                yield self._text[position : self._ends]
                return
            yield self._text[position:comma]
            position = comma + 1
            time.sleep(_PAUSE_S)


def parse(text: bytes) -> Any:
    """As `orjson.loads`, but a long list of numbers under the key `data` is a `LongList`.

    Raises:
        orjson.JSONDecodeError: it is no JSON.
    """
    parts: list[bytes] = []
    lists: list[LongList] = []
    position = 0
    for begins, ends in _lists(text):
        parts += (text[position:begins], b'"%b %d"' % (_STAND_IN.encode(), len(lists)))
        lists.append(LongList(text, begins, ends))
        position = ends
    if lists:
        parts.append(text[position:])
        try:
            document = orjson.loads(b"".join(parts))
            if _put_back(document, lists):
                return document
        except orjson.JSONDecodeError:
            pass  # the error should tell of the text that came
    return orjson.loads(text)


def written(tensor: Tensor) -> orjson.Fragment:
    """The flat list of a long tensor of numbers, as JSON."""
    parts: list[bytes] = []
    for first in range(0, tensor.size, _PIECE_ELEMENTS):
        piece = tensor[first : first + _PIECE_ELEMENTS]
        parts.append(orjson.dumps(piece, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        time.sleep(_PAUSE_S)
    return orjson.Fragment(b"[%b]" % b",".join(parts))


def not_json(text: bytes, error: orjson.JSONDecodeError) -> InvalidRequest:
    """The refusal of a body with this text in it."""
    shown = text[:40].decode("utf-8", "backslashreplace")
    return InvalidRequest("body", shown, f"a JSON object in UTF-8 ({error})")


def _lists(text: bytes) -> Iterator[tuple[int, int]]:
    """Where long lists of numbers begin and end.

    Within a string each quote has a backslash before it, so that the key cannot be part of one.
    """
    position = 0
    while (found := text.find(_KEY, position)) >= 0:
        position = found + len(_KEY)
        begins = _after_space(text, position)
        if text[begins : begins + 1] != b":":
            continue
        begins = _after_space(text, begins + 1)
        if text[begins : begins + 1] != b"[":
            continue
        # A list of numbers holds neither of these.
        quote = text.find(b'"', begins)
        brace = text.find(b"}", begins, quote if quote >= 0 else len(text))
        stop = brace if brace >= 0 else quote
        ends = text.rfind(b"]", begins, stop if stop >= 0 else len(text)) + 1
        if ends - begins >= _LEAST_BYTES:
            yield begins, ends
            position = ends


def _after_space(text: bytes, position: int) -> int:
    while text[position : position + 1] in (b" ", b"\n", b"\t", b"\r"):
        position += 1
    return position


def _put_back(document: Any, lists: list[LongList]) -> bool:
    """Whether every list belongs to an input, and now stands there."""
    left = len(lists)
    inputs = document.get("inputs") if isinstance(document, dict) else None
    for item in inputs if isinstance(inputs, list) else ():
        data = item.get("data") if isinstance(item, dict) else None
        if isinstance(data, str) and data.startswith(_STAND_IN):
            item["data"] = lists[int(data.rpartition(" ")[2])]
            left -= 1
    return left == 0
