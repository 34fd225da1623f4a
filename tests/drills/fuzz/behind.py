"""Behind the door: cases of the functions that read what came."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from random import Random

import zstandard

from gateway.http import codings
from gateway.wire import v2
from router import constraints
from tests.drills import mutations
from tests.drills.fuzz.cases import LIMIT_BYTES, Case, Fault
from tests.drills.mutations import DATATYPES


def _headers(dice: Random) -> str:
    given = mutations.parameters(dice) if dice.random() < 0.5 else None
    constraints.parse(tuple(mutations.stated(dice)), given)
    return "read"


def _specs(datatype: str) -> tuple[v2.Inputs, Mapping[str, mutations.TensorSpec]]:
    spec = mutations.spec(datatype)
    return v2.Inputs([spec]), {"same": spec.model_copy(update={"name": "same"})}


_SPECS = {datatype: _specs(datatype) for datatype in DATATYPES}


def _body(dice: Random) -> str:
    """JSON whose members were tampered with."""
    datatype = dice.choice(DATATYPES)
    document, tail = mutations.request(dice, datatype)
    text = mutations.text_of(mutations.altered(dice, document))
    length = mutations.json_length(dice, len(text) if tail is not None else None)
    return decoded(text + (tail or b""), length, datatype)


def _bytes(dice: Random) -> str:
    """A good body whose bytes were tampered with, binary tensors included."""
    datatype = dice.choice(DATATYPES)
    document, tail = mutations.request(dice, datatype)
    text = mutations.text_of(document)
    length = mutations.json_length(dice, len(text) if tail is not None else None)
    return decoded(mutations.scrambled(dice, text + (tail or b"")), length, datatype)


def _binary(dice: Random) -> str:
    """A good document whose tensor's bytes were tampered with, sizes included."""
    datatype = dice.choice(DATATYPES)
    document, tail = mutations.request(dice, datatype)
    tail = mutations.scrambled(dice, tail or dice.randbytes(8))
    own = document["inputs"][0]
    own.pop("data", None)
    off = dice.choice((0, 0, 0, 1, -1, 4, 10**9, -(10**9), 2**63))
    own["parameters"] = {"binary_data_size": len(tail) + off}
    if dice.random() < 0.3:
        own["shape"] = [dice.choice((0, 1, 2, 10**9, 2**62, 2**63, 2**64)), 2]
    text = mutations.text_of(document)
    return decoded(text + tail, b"%d" % len(text), datatype)


def decoded(body: bytes, length: bytes | None, datatype: str) -> str:
    inputs, outputs = _SPECS[datatype]
    decoded = v2.decode(body, length, inputs, outputs)
    constraints.parse((), decoded.parameters)
    for name, tensor in decoded.inputs.items():
        if len(tensor) != decoded.rows or tensor.shape[1:] != (2,):
            raise Fault(f"{name} has shape {tensor.shape}, for {decoded.rows} rows")
    return "read"


def _coded(dice: Random) -> str:
    """Compressed bodies that were tampered with, bombs among them."""
    plain = dice.choice((b"{}", b"0" * 50_000, dice.randbytes(3000), b"0" * (3 << 20)))
    coding, packed = dice.choice(
        (
            (b"gzip", gzip.compress(plain, 1)),
            (b"deflate", zlib.compress(plain, 1)),
            (b"zstd", zstandard.ZstdCompressor(level=1).compress(plain)),
        )
    )
    if dice.random() < 0.8:
        packed = mutations.scrambled(dice, packed)
    if dice.random() < 0.1:
        coding = dice.choice((b"br", b"", b"gzip, gzip", b"\xff", b"zstd"))
    if len(codings.inflate(packed, coding, LIMIT_BYTES)) > LIMIT_BYTES:
        raise Fault("inflated beyond the limit")
    return "read"


BEHIND: Mapping[str, tuple[Case, float]] = {
    "headers": (_headers, 0.16),
    "json": (_body, 0.24),
    "bytes": (_bytes, 0.16),
    "binary": (_binary, 0.12),
    "codings": (_coded, 0.02),
}
"""Cases of functions, each with its share of all."""
