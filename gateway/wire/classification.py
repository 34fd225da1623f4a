"""The classification extension: an output as its highest values, each with its index and label.

The specification: Triton's "Classification Extension". An element is `value:index:label`, without
the last part where the class has no label.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.wire import byte_elements
from router.card import TensorSpec
from router.errors import InvalidRequest

Outputs = tuple[tuple[TensorSpec, bool], ...]


def count_of(field: str, raw: object, spec: TensorSpec) -> int:
    """How many classes an output's `classification` parameter asks for; 0 for none.

    Raises:
        InvalidRequest: no such number, or the output has nothing to compare.
    """
    if raw is None:
        return 0
    if type(raw) is not int or raw < 0:
        raise InvalidRequest(field, raw, "a number of classes from 0")
    if raw and (spec.datatype in ("BOOL", "BYTES") or len(spec.shape) < 2):
        raise InvalidRequest(
            field, raw, f"none; {spec.name} is {spec.datatype} of shape {list(spec.shape)}"
        )
    return raw


def labels_of(spec: TensorSpec, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The model's class labels, if it is this output that has a value for each of them."""
    return labels if labels and spec.shape[1:] == (len(labels),) else None


def applied(
    outputs: Outputs,
    tensors: Mapping[str, Tensor],
    classes: Mapping[str, int],
    labels: tuple[str, ...] | None,
) -> tuple[Outputs, dict[str, Tensor]]:
    """An answer's outputs with those that `classes` names as their highest values, as BYTES.

    Args:
        classes: how many, by output; as many as there are where it asks for more.
        labels: the model's, if it has any.
    """
    described: list[tuple[TensorSpec, bool]] = []
    found = dict(tensors)
    for spec, binary in outputs:
        if count := classes.get(spec.name):
            found[spec.name] = _top(tensors[spec.name], count, labels_of(spec, labels))
            spec = TensorSpec(name=spec.name, datatype="BYTES", shape=(-1, -1))
        described.append((spec, binary))
    return tuple(described), found


def _top(tensor: Tensor, count: int, labels: tuple[str, ...] | None) -> Tensor:
    rows = tensor.reshape(len(tensor), -1)
    if tensor.dtype == NUMPY_TYPES["BF16"]:
        rows = rows.astype(np.float32)
    whole = rows.dtype.kind in "iu"
    # Of equal values the first comes first; NaN comes last, whose place is nowhere.
    order = _descending(rows)[:, :count]
    elements = [
        f"{int(row[index])}:{index}{_label(labels, index)}".encode()
        if whole
        else f"{float(row[index]):f}:{index}{_label(labels, index)}".encode()
        for row, chosen in zip(rows, order.tolist(), strict=True)
        for index in chosen
    ]
    return byte_elements.as_tensor(elements, order.shape)


def _descending(rows: Tensor) -> Tensor:
    if rows.dtype.kind == "u":
        rows = np.iinfo(rows.dtype).max - rows  # what is unsigned has no negative
    elif rows.dtype.kind == "i":
        rows = ~rows  # the smallest has no negative either
    else:
        rows = -rows
    order: Tensor = np.argsort(rows, axis=1, kind="stable")
    return order


def _label(labels: tuple[str, ...] | None, index: int) -> str:
    return f":{labels[index]}" if labels else ""
