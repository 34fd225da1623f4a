"""A batch: the rows of several requests as one call of an engine, and what came out apart again.

Requests may differ in a free dimension, such as a sequence's length. Rows of different shapes make
no one tensor, and padding them would change what the callers asked; those of equal shapes run
together, one call for each group. An engine that fails on one group has failed on that one alone:
a request whose inputs disagree takes nobody of another shape with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gateway.engines import Program, Tensor
from gateway.fleet import check_outputs
from gateway.messages import InferRequest
from router.card import TensorSpec

Outputs = dict[str, Tensor]


class Ran(NamedTuple):
    """What came of a batch.

    Attributes:
        outcomes: for each request, in their order, its outputs, each (rows of it, ...), or what
            its group failed with.
        failed_s: seconds that went into groups that failed.
    """

    outcomes: list[Outputs | Exception]
    failed_s: float


def run(
    program: Program,
    requests: Sequence[InferRequest],
    specs: tuple[TensorSpec, ...],
    largest: int,
) -> Ran:
    """Run `requests`. A group fails where the engine raises anything, or answers with something
    else than was promised.

    Args:
        specs: the outputs that were promised.
        largest: rows that the engine is given at once; a request with more runs in pieces.
    """
    outcomes: list[Outputs | Exception] = [{} for _ in requests]
    failed_s = 0.0
    for group in _alike(requests):
        members = [requests[index] for index in group]
        rows = [request.rows for request in members]
        begun_s = time.monotonic()
        try:
            outputs = _together(program, members, sum(rows), largest)
            check_outputs(outputs, specs, sum(rows))
        except Exception as error:  # engines have no common base for what they raise
            failed_s += time.monotonic() - begun_s
            for index in group:
                outcomes[index] = error
            continue
        for index, mine in zip(group, _shares(outputs, rows), strict=True):
            outcomes[index] = mine
    return Ran(outcomes, failed_s)


def _alike(requests: Sequence[InferRequest]) -> list[list[int]]:
    """The requests' indices, grouped by the shape of a row, in order of their first ones."""
    if len(requests) == 1:
        return [[0]]
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for index, request in enumerate(requests):
        # Every request has all inputs, and in the order of the first: theirs may differ.
        shape = tuple(request.inputs[name].shape[1:] for name in requests[0].inputs)
        groups.setdefault(shape, []).append(index)
    return list(groups.values())


def _together(
    program: Program, requests: Sequence[InferRequest], rows: int, largest: int
) -> Outputs:
    inputs: Mapping[str, Tensor] = requests[0].inputs
    if len(requests) > 1:
        inputs = {
            name: np.concatenate([request.inputs[name] for request in requests]) for name in inputs
        }
    return program.infer(inputs) if rows <= largest else _in_pieces(program, inputs, largest)


def _shares(outputs: Mapping[str, Tensor], rows: Sequence[int]) -> Iterator[Outputs]:
    """The outputs of each request, which has `rows` of them; views, not copies."""
    first = 0
    for count in rows:
        last = first + count
        yield {name: tensor[first:last] for name, tensor in outputs.items()}
        first = last


def _in_pieces(program: Program, inputs: Mapping[str, Tensor], largest: int) -> Outputs:
    rows = len(next(iter(inputs.values())))
    pieces = [
        program.infer({name: tensor[start : start + largest] for name, tensor in inputs.items()})
        for start in range(0, rows, largest)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
