"""A batch: the rows of several requests as one call of an engine, and what came out apart again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gateway.engines import Program, Tensor
from gateway.fleet import check_outputs
from gateway.messages import InferRequest
from router.card import TensorSpec


def run(
    program: Program,
    requests: Sequence[InferRequest],
    specs: tuple[TensorSpec, ...],
    largest: int,
) -> dict[str, Tensor]:
    """The outputs of `requests`, in their order, each (rows of all, ...).

    Args:
        specs: the outputs that were promised.
        largest: rows that the engine is given at once; a request with more runs in pieces.

    Raises:
        EngineError: the engine failed, or answered with something else than was promised.
    """
    rows = sum(request.rows for request in requests)
    inputs: Mapping[str, Tensor] = requests[0].inputs
    if len(requests) > 1:
        inputs = {
            name: np.concatenate([request.inputs[name] for request in requests]) for name in inputs
        }
    outputs = program.infer(inputs) if rows <= largest else _in_pieces(program, inputs, largest)
    check_outputs(outputs, specs, rows)
    return outputs


def shares(outputs: Mapping[str, Tensor], rows: Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """The outputs of each request, which has `rows` of them; views, not copies."""
    first = 0
    for count in rows:
        last = first + count
        yield {name: tensor[first:last] for name, tensor in outputs.items()}
        first = last


def _in_pieces(program: Program, inputs: Mapping[str, Tensor], largest: int) -> dict[str, Tensor]:
    rows = len(next(iter(inputs.values())))
    pieces = [
        program.infer({name: tensor[start : start + largest] for name, tensor in inputs.items()})
        for start in range(0, rows, largest)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
