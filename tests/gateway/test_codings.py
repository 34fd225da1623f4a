"""Content codings: what was deflated is inflated, never to more than is allowed."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import codings
from router.errors import InvalidRequest, TooLarge

LIMIT = 8 << 20
NAMES = ("gzip", "deflate", "zstd")


def deflated(body: bytes, name: str) -> bytes:
    return codings.deflated(body, name)


@given(st.binary(max_size=3000), st.sampled_from(NAMES))
def test_there_and_back(body: bytes, name: str) -> None:
    assert codings.inflate(deflated(body, name), name.encode(), LIMIT) == body


def test_what_others_write_is_read() -> None:
    body = b"text " * 1000
    streamed = zstandard.ZstdCompressor().compressobj()  # without the size in its head
    written = streamed.compress(body) + streamed.flush()
    assert codings.inflate(written, b"zstd", LIMIT) == body
    assert codings.inflate(written + written, b" ZSTD ", LIMIT) == body * 2
    assert codings.inflate(gzip.compress(body, 9) + gzip.compress(body), b"gzip", LIMIT) == body * 2
    assert codings.inflate(zlib.compress(body), b"deflate", LIMIT) == body


@pytest.mark.parametrize("name", NAMES)
def test_the_limit_is_the_last_size_that_passes(name: str) -> None:
    body = bytes(range(256)) * 40
    written = deflated(body, name)
    assert codings.inflate(written, name.encode(), len(body)) == body
    with pytest.raises(TooLarge, match=f"at most {len(body) - 1} bytes"):
        codings.inflate(written, name.encode(), len(body) - 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_takes_no_memory(name: str) -> None:
    bomb = deflated(bytes(256 << 20), name)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        codings.inflate(bomb, name.encode(), LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * LIMIT


def test_what_inflates_beyond_reason_is_refused_below_the_limit() -> None:
    bomb = deflated(bytes(64 << 20), "zstd")
    assert len(bomb) * 1000 < 64 << 20
    with pytest.raises(TooLarge):
        codings.inflate(bomb, b"zstd", 1 << 30)
    assert len(codings.inflate(deflated(bytes(1 << 20), "zstd"), b"zstd", 1 << 30)) == 1 << 20


@pytest.mark.parametrize("name", NAMES)
def test_a_body_that_is_not_whole(name: str) -> None:
    written = deflated(b"some text that is long enough " * 9, name)
    for wrong in (written[:-3], written + b"more", b"no such thing", b""):
        with pytest.raises(InvalidRequest, match=f"a whole body in {name}"):
            codings.inflate(wrong, name.encode(), LIMIT)


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_empty_parts(name: str) -> None:
    with pytest.raises(InvalidRequest, match="more than 8 parts"):
        codings.inflate(deflated(b"", name) * 1000, name.encode(), LIMIT)


def test_a_window_that_nobody_needs() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    written = writer.compress(b"x" * 100) + writer.flush()
    with pytest.raises(InvalidRequest, match="zstd"):
        codings.inflate(written, b"zstd", LIMIT)


def test_a_coding_that_is_none() -> None:
    for coding in (b"br", b"", b"gzip, zstd", b"\xff"):
        with pytest.raises(InvalidRequest, match="one of gzip, deflate, zstd, identity"):
            codings.inflate(b"", coding, LIMIT)


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"", None), (b"identity", None), (b"br", None), (b"gzip", "gzip"), (b"GZIP", "gzip"),
        (b"gzip, deflate, br, zstd", "zstd"), (b"gzip, zstd;q=0.5", "gzip"), (b"*", "zstd"),
        (b"*, zstd;q=0", "gzip"), (b"gzip;q=0", None), (b"gzip;q=0, *;q=0", None),
        (b"gzip;q=high", None), (b";;,,q", None), (b"deflate ; q=0.1", "deflate"),
    ],
)  # fmt: skip
def test_what_the_client_accepts(accept: bytes, coding: str | None) -> None:
    assert codings.chosen(accept) == coding


@given(st.binary(max_size=60))
def test_any_accept_encoding_is_read(accept: bytes) -> None:
    assert codings.chosen(accept) in (None, *NAMES)
