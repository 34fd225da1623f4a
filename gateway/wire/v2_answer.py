"""Answers of the Open Inference Protocol v2 as bytes: JSON, then binary tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.engines import Tensor
from gateway.wire.long_lists import LONG_ELEMENTS
from gateway.wire.tensors import BINARY_SIZE, dumps, to_bytes, to_json
from router.card import TensorSpec

Outputs = tuple[tuple[TensorSpec, bool], ...]


def encode(
    head: dict[str, Any],
    tensors: Mapping[str, Tensor],
    outputs: Outputs,
) -> tuple[bytes, int | None]:
    """An answer's body, and the length of its JSON part when binary tensors follow it.

    Args:
        head: the members before `outputs`; is added to.
    """
    described: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for spec, binary in outputs:
        tensor = tensors[spec.name]
        one: dict[str, Any] = {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": tensor.shape,
        }
        if binary:
            raw = to_bytes(spec, tensor)
            one["parameters"] = {BINARY_SIZE: len(raw)}
            tail.append(raw)
        else:
            one["data"] = to_json(spec, tensor)
        described.append(one)
    head["outputs"] = described
    text = dumps(head)
    return (b"".join((text, *tail)), len(text)) if tail else (text, None)


def is_long(tensors: Mapping[str, Tensor], outputs: Outputs) -> bool:
    """Whether `encode` may take so long that it should not run on the event loop."""
    return (
        max([0 if binary else tensors[spec.name].size for spec, binary in outputs]) >= LONG_ELEMENTS
    )
