"""Content codings: bodies that come compressed, and answers that leave so (RFC 9110, 8.4).

gzip (RFC 1952), deflate (RFC 1950, in zlib's format) and zstd (RFC 8878). A body is inflated to no
more than the limit that an uncompressed one has, in memory that the limit bounds, and to no more
than a thousand times its size once it is beyond a mebibyte: what inflates further was made to.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from functools import lru_cache

import zstandard

from gateway.http.asgi import too_large
from router.errors import InvalidRequest

# gzip cannot do better than 1032 and reaches that on zeros alone; a zstd bomb passes a million.
_MOST_RATIO = 1000
_ANY_RATIO_BYTES = 1 << 20
# What a decoder must take (RFC 8878, 3.1.1.1.2), and so the most that a frame makes us allocate.
_MOST_WINDOW = 8 << 20
# An answer below it fits a few packets either way; above, the time to compress it is worth it to
# whoever asks for that.
LEAST_BYTES = 16 << 10
_PIECE = 256 << 10
# A body may be several members or frames in a row. Each costs a copy of what follows it, so that a
# million empty ones would take for ever.
_MOST_PARTS = 8

IDENTITY = b"identity"


def inflate(body: bytes, coding: bytes, limit_bytes: int) -> bytes:
    """`body` without its coding. Takes long: not for the event loop.

    Raises:
        InvalidRequest: the coding is none of ours, or the body is not in it.
        TooLarge: it is over `limit_bytes`, or inflated beyond reason.
    """
    name = coding.decode("latin-1").strip().lower()
    decode = _DECODERS.get(name)
    if decode is None:
        raise InvalidRequest(
            "Content-Encoding",
            coding.decode("latin-1"),
            "one of " + ", ".join((*_DECODERS, IDENTITY.decode())),
        )
    allowed = min(limit_bytes, max(_ANY_RATIO_BYTES, len(body) * _MOST_RATIO))
    try:
        inflated = decode(body, allowed)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise InvalidRequest(
            "body", f"{len(body)} bytes", f"a whole body in {name} ({error})"
        ) from error
    if inflated is None:
        raise too_large(allowed, f"more, from {len(body)} bytes in {name}")
    return inflated


# Clients repeat themselves.
@lru_cache(maxsize=256)
def chosen(accept: bytes) -> str | None:
    """The coding of a large answer by `Accept-Encoding` (RFC 9110, 12.5.3); None for none."""
    weights = {name: _weight_of(accept, name) for name in _ENCODERS}
    best = max(weights, key=lambda name: weights[name])
    return best if weights[best] > 0 else None


def takes(accept: bytes, coding: str) -> bool:
    """Whether who sent this `Accept-Encoding` takes an answer in that coding."""
    return _weight_of(accept, coding) > 0


def deflated(body: bytes, coding: str) -> bytes:
    """`body` in a coding that `chosen` named. Takes long: not for the event loop."""
    return _ENCODERS[coding](body)


def _weight_of(accept: bytes, coding: str) -> float:
    weights: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights[name] = _weight(parameters)
    return weights.get(coding, weights.get("*", 0.0))


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _zlib(window_bits: int) -> Callable[[bytes, int], bytes | None]:
    def decode(body: bytes, limit: int) -> bytes | None:
        parts: list[bytes] = []
        left, size = body, 0
        for _ in range(_MOST_PARTS):
            inflater = zlib.decompressobj(window_bits)
            parts.append(inflater.decompress(left, limit - size + 1))
            size += len(parts[-1])
            if size > limit:
                return None
            if not inflater.eof:
                raise EOFError("it ends too early")
            left = inflater.unused_data
            if not left:
                return b"".join(parts)
        raise EOFError(f"it has more than {_MOST_PARTS} parts")

    return decode


def _zstd(body: bytes, limit: int) -> bytes | None:
    # The reader stops at any size but says nothing of a body cut short; the other decoder says it
    # but stops at none. So the first one counts, and the second one works.
    decoder = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
    piece = bytearray(_PIECE)
    with decoder.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
        size = 0
        while count := reader.readinto(piece):
            size += count
            if size > limit:
                return None
    parts: list[bytes] = []
    left = body
    for _ in range(_MOST_PARTS):
        inflater = decoder.decompressobj()
        parts.append(inflater.decompress(left))
        if not inflater.eof:
            raise EOFError("it ends too early")
        left = inflater.unused_data
        if not left:
            return b"".join(parts)
    raise EOFError(f"it has more than {_MOST_PARTS} parts")


def _gzip(body: bytes) -> bytes:
    # Level 1: a third of the time of the usual one, for a tenth more bytes.
    deflater = zlib.compressobj(1, zlib.DEFLATED, 31)
    return deflater.compress(body) + deflater.flush()


_DECODERS: dict[str, Callable[[bytes, int], bytes | None]] = {
    "gzip": _zlib(31),
    "deflate": _zlib(15),
    "zstd": _zstd,
}
# The first of equals is taken.
_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": lambda body: zstandard.ZstdCompressor(level=1).compress(body),
    "gzip": _gzip,
    "deflate": lambda body: zlib.compress(body, 1),
}
