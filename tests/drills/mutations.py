"""Cases for the fuzzer: good requests, and what chance makes of them.

Everything follows from the generator that is handed in, so a case is its seed and its number.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from gateway.engines import NUMPY_TYPES
from gateway.wire.byte_elements import pack
from router.card import TensorSpec
from router.constraints import ALIASES, HEADERS, KEYS

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip


def _deep(levels: int) -> Any:
    value: Any = [0] * 64
    for _ in range(levels):
        value = [value, value] if levels < 8 else [value]
    return value


# What programs stumble over.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 256, -129, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, -(2**63),
    10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, 1e400, -1e400, math.nan, "", " ", "a", "0", "1", "true",
    "null", "99%", "1e5", "reference", "fp32", "nobody", "../..", "\0", "\ud800", "é" * 9,
    "x" * 999,
    [], [[]], [[[]]], [None], [0] * 300, [[1, 2], [3]], {}, {"a": 1}, {"": None}, "FP32", "BYTES",
    ["x" * 40_000, *[""] * 20_000], _deep(7), _deep(100),
    "latency,cost", "high", "cost", "5m", "0n", "99999999H", "123456789S",
)  # fmt: skip
NAMES = (
    *KEYS, "timeout", "priority", "binary_data_size", "binary_data", "binary_data_output", "id",
    "classification", "shared_memory_region", "name", "shape", "datatype", "data", "parameters",
    "inputs", "outputs", "model_name", "", "\0", "__proto__",
)  # fmt: skip


_GOOD = (
    ("gearshift-max-latency-ms", "500"), ("gearshift-min-accuracy", "90%"),
    ("gearshift-optimize", "latency"), ("gearshift-relax", "accuracy,cost"),
    ("gearshift-variant", "fp32"), ("gearshift-priority", "low"), ("gearshift-explain", "true"),
    ("x-envoy-expected-rq-timeout-ms", "800"), ("gearshift-max-cost-usd-per-million", "3"),
)  # fmt: skip


def spec(datatype: str) -> TensorSpec:
    """The one input, and but for its name the one output, of the model of that datatype."""
    return TensorSpec(name="given", datatype=datatype, shape=(-1, 2))  # type: ignore[arg-type]


def request(dice: Random, datatype: str) -> tuple[dict[str, Any], bytes | None]:
    """A good request for it: its document, and its tensors' bytes where they follow it."""
    rows = dice.choice((1, 1, 1, 2, 3, 8))
    tensor: dict[str, Any] = {"name": "given", "datatype": datatype, "shape": [rows, 2]}
    values = [dice.randrange(2) for _ in range(rows * 2)]
    tail: bytes | None = None
    if dice.random() < 0.5:
        texts = [b"x" * value for value in values]
        tail = (
            pack(np.array(texts, object))
            if datatype == "BYTES"
            else np.array(values).astype(NUMPY_TYPES[datatype]).tobytes()
        )
        tensor["parameters"] = {"binary_data_size": len(tail)}
    elif datatype == "BYTES":
        tensor["data"] = ["x" * value for value in values]
    else:
        tensor["data"] = [bool(value) for value in values] if datatype == "BOOL" else values
    document: dict[str, Any] = {"inputs": [tensor]}
    if dice.random() < 0.3:
        document["id"] = "7"
    if dice.random() < 0.4:
        output: dict[str, Any] = {"name": "same"}
        if dice.random() < 0.5:
            output["parameters"] = {"binary_data": dice.random() < 0.5}
        elif dice.random() < 0.3:
            output["parameters"] = {"classification": 1}
        document["outputs"] = [output]
    if dice.random() < 0.4:
        key, value = dice.choice(
            (("max_latency_ms", 500), ("min_accuracy", "90%"), ("optimize", "cost"),
             ("relax", "latency"), ("priority", 1), ("timeout", 10**6), ("variant", "reference"),
             ("max_cost_usd_per_million", 9.5), ("binary_data_output", True))
        )  # fmt: skip
        document["parameters"] = {key: value}
    return document, tail


def altered(dice: Random, document: Any) -> Any:
    """The document with one to three of its members replaced, dropped, renamed, moved or added."""
    document = copy.deepcopy(document)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _places(document, places)
        if not places:
            return _any(dice)
        holder, key = dice.choice(places)
        match dice.randrange(6):
            case 0 | 1:
                holder[key] = _any(dice)
            case 2:
                del holder[key]
            case 3 if isinstance(holder, dict):
                holder[dice.choice(NAMES)] = _any(dice)
            case 4 if isinstance(holder, list):
                holder.append(copy.deepcopy(dice.choice(holder)))
            case _:
                holder[key] = copy.deepcopy(dice.choice(places)[0])
    return document


def _any(dice: Random) -> Any:
    """A copy: what becomes of it in one case is none of the next one's."""
    return copy.deepcopy(dice.choice(VALUES))


def _places(value: Any, places: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        places.append((value, key))
        if isinstance(inner, dict | list):
            _places(inner, places)


def text_of(document: Any) -> bytes:
    """JSON, and what only some take for it."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def scrambled(dice: Random, raw: bytes) -> bytes:
    """`raw` with some of its bytes changed, dropped, doubled or put in."""
    piece = bytearray(raw)
    for _ in range(dice.choice((1, 1, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(piece) + 1)
        match dice.randrange(7):
            case 0 if at < len(piece):
                piece[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(piece):
                piece[at] = dice.choice(b'\x00\xff\r\n\t "{}[],:0-.eE\\%;')
            case 2:
                piece[at:at] = dice.randbytes(dice.choice((1, 2, 4, 30)))
            case 3:
                del piece[at : at + dice.choice((1, 2, 4, 30))]
            case 4:
                piece[at:at] = piece[at : at + dice.choice((1, 4, 30))]
            case 5:
                del piece[at:]
            case _:
                piece += dice.randbytes(dice.choice((1, 4, 30)))
    return bytes(piece)


def stated(dice: Random) -> list[tuple[str, str]]:
    """Headers of constraints, some good and some not."""
    names = [*HEADERS, *ALIASES, "gearshift-explain", "gearshift-nonsense", "gearshift-"]
    few = range(dice.choice((1, 1, 1, 2, 3, 4)))
    return [
        dice.choice(_GOOD) if dice.random() < 0.5 else (dice.choice(names), _value(dice))
        for _ in few
    ]


def parameters(dice: Random) -> dict[str, Any]:
    """Parameters of constraints, some good and some not."""
    return {dice.choice(NAMES): _any(dice) for _ in range(dice.choice((0, 1, 2, 3)))}


def _value(dice: Random) -> str:
    value = dice.choice(VALUES)
    text = value if isinstance(value, str) else str(value)[:400]
    return scrambled(dice, text.encode("utf-8", "replace")).decode("latin-1")


def json_length(dice: Random, true: int | None) -> bytes | None:
    """The header that says where the JSON part ends: mostly true."""
    if dice.random() < 0.85:
        return None if true is None else b"%d" % true
    off = (true or 0) + dice.choice((-1, 1, 5, 10**6))
    odd: Sequence[bytes] = (
        b"",
        b"0",
        b"-1",
        b"1e3",
        b"\xb2",
        b"9" * 30,
        b" 1",
        b"%d" % max(0, off),
    )
    return dice.choice(odd)
