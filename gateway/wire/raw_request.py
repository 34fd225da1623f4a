"""Raw binary requests: a body that is one tensor's bytes and nothing else.

The specification: Triton's "Binary Tensor Data Extension", "Raw Binary Request": the header
`Inference-Header-Content-Length: 0` says so, and the answer is binary too. Where Triton takes the
bytes for one row, we take them for as many rows as they make, if no other size is free.
"""

from __future__ import annotations

import math

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.wire import byte_elements
from gateway.wire.tensors import view
from router.card import TensorSpec
from router.errors import InvalidRequest


def tensor(body: bytes, spec: TensorSpec) -> Tensor:
    """The one tensor that a body is, as a view of it.

    The sizes that the model leaves free follow from the number of bytes: the rows, or with one row
    another one. The bytes of a BYTES input are its one element, without a length before them.

    Raises:
        InvalidRequest: it is empty, or its size leaves the shape open, or fits none.
    """
    fixed = math.prod(size for size in spec.shape if size != -1)
    free = [place for place, size in enumerate(spec.shape) if size == -1]
    if spec.datatype == "BYTES":
        if fixed != 1:
            raise _misfit(len(body), spec, "one element a row")
        return byte_elements.as_tensor([body], (1,) * len(spec.shape))
    kind = NUMPY_TYPES[spec.datatype]
    if len(free) > 2:
        raise _misfit(len(body), spec, "at most one free dimension besides the rows")
    count, left = divmod(len(body), fixed * kind.itemsize)
    if left or not count:
        raise _misfit(len(body), spec, f"a multiple of {fixed * kind.itemsize} bytes")
    shape = list(spec.shape)
    shape[0] = 1
    shape[free[-1]] = count
    return view("body", body, kind, tuple(shape), 0)


def _misfit(size: int, spec: TensorSpec, expected: str) -> InvalidRequest:
    return InvalidRequest(
        "body",
        f"{size} bytes",
        f"{expected} for {spec.name}, {spec.datatype} of {list(spec.shape)}, in a raw request",
    )
