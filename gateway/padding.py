"""Rows filled up to the lengths that their variant's card declares, and answers cut back.

`router.padding` says what may be declared. Here it is done to tensors: each request's rows are
filled up to its bucket whoever it shares a batch with, alone too, so that the answer does not
depend on the company, and the engine meets no shape that it was not warmed up with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gateway.engines import EngineError, Tensor, Tensors, blank
from router.card import VariantCard
from router.padding import Padding

RowShapes = Mapping[str, tuple[int, ...]]


class Cut(NamedTuple):
    """How much of one dimension of an output is the caller's: `length` of `bucket`."""

    output: str
    dimension: int
    length: int
    bucket: int


class Fit(NamedTuple):
    """How a request is filled up.

    Attributes:
        shapes: of a row of each input, when filled up; in the order of the inputs asked for.
        cuts: what to cut off its outputs.
    """

    shapes: tuple[tuple[int, ...], ...]
    cuts: tuple[Cut, ...]


def fit(inputs: Tensors, names: Sequence[str], paddings: Sequence[Padding]) -> Fit:
    """How `inputs`, of which `names` gives an order, are filled up.

    Lengths that should be equal and are not stay as they are: what the engine says of them is the
    caller's to hear.
    """
    shapes = {name: list(inputs[name].shape[1:]) for name in names}
    cuts: list[Cut] = []
    for padding in paddings:
        lengths = {shapes[one.input][one.dimension - 1] for one in padding.inputs}
        if len(lengths) > 1:
            continue
        length = lengths.pop()
        bucket = padding.bucket(length)
        if bucket == length:
            continue
        for one in padding.inputs:
            shapes[one.input][one.dimension - 1] = bucket
        cuts += [Cut(one.output, one.dimension, length, bucket) for one in padding.outputs]
    return Fit(tuple(tuple(shapes[name]) for name in names), tuple(cuts))


def filled(
    requests: Sequence[Tensors], shapes: RowShapes, paddings: Sequence[Padding]
) -> dict[str, Tensor]:
    """The rows of `requests` one after another, each filled up to `shapes`."""
    values = {one.input: one.value for padding in paddings for one in padding.inputs}
    whole: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        pieces = [request[name] for request in requests]
        if all(piece.shape[1:] == shape for piece in pieces):
            whole[name] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            continue
        rows = sum(len(piece) for piece in pieces)
        tensor = np.full((rows, *shape), values[name], pieces[0].dtype)
        first = 0
        for piece in pieces:
            last = first + len(piece)
            tensor[(slice(first, last), *(slice(size) for size in piece.shape[1:]))] = piece
            first = last
        whole[name] = tensor
    return whole


def cut(outputs: Mapping[str, Tensor], cuts: Sequence[Cut]) -> dict[str, Tensor]:
    """A request's outputs without what came of its filling; views, not copies.

    Raises:
        EngineError: an output is not as long as the card says that it is.
    """
    mine = dict(outputs)
    for name, dimension, length, bucket in cuts:
        tensor = mine[name]
        if tensor.shape[dimension] != bucket:
            raise EngineError(
                f"output {name!r} has size {tensor.shape[dimension]} at dimension {dimension}, "
                f"expected {bucket}, which the inputs were padded to"
            )
        mine[name] = tensor[(slice(None),) * dimension + (slice(length),)]
    return mine


def warm_up_inputs(card: VariantCard, max_batch: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Inputs that hold nothing, with which an engine sees the shapes that requests will have.

    Every number of rows up to `max_batch` at the shortest bucket, and twice as many each time at
    longer ones: all of theirs would take eight times as long, half a minute for a sentence encoder
    up to 64 tokens. Where several paddings are declared, their shortest buckets go together, then
    their next. A size that is free and not padded is 1.

    Yields:
        The number of rows, and the inputs.
    """
    steps = max([1, *(len(padding.buckets) for padding in card.padding)])
    for step in range(steps):
        sizes = {
            (one.input, one.dimension): padding.buckets[min(step, len(padding.buckets) - 1)]
            for padding in card.padding
            for one in padding.inputs
        }
        shapes = {
            spec.name: tuple(
                sizes.get((spec.name, dimension), 1) if size == -1 else size
                for dimension, size in enumerate(spec.shape[1:], 1)
            )
            for spec in card.inputs
        }
        for rows in _counts(max_batch, every=step == 0):
            yield (
                rows,
                {
                    spec.name: blank(spec.datatype, (rows, *shapes[spec.name]))
                    for spec in card.inputs
                },
            )


def _counts(most: int, *, every: bool) -> list[int]:
    if every:
        return list(range(1, most + 1))
    return sorted({most, *(1 << power for power in range(most.bit_length()))})
