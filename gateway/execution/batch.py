"""A batch: the rows of several requests as one call of an engine, and what came out apart again.

Requests may differ in a free dimension, such as a sequence's length. Rows of different shapes make
no one tensor, and padding them would change what the callers asked, unless the variant's card says
that it does not; those of equal shapes run together, one call for each group. An engine that fails
on one group has failed on that one alone: a request whose inputs disagree takes nobody of another
shape with it. Nor of its own: a group that failed runs again in halves, until it is known whose
inputs the engine does not bear.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gateway import padding
from gateway.engines import EngineError, Program, Tensor, blank
from gateway.hosts import LaneLost
from gateway.lifecycle.fleet import check_outputs
from gateway.messages import InferRequest
from router.breaker import Outcome
from router.card import TensorSpec, VariantCard
from router.errors import InvalidRequest
from router.padding import Padding

Outputs = dict[str, Tensor]

# Larger ones would have the linear algebra library start threads of its own.
_SMALL = 4096
_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})


class NotRun(EngineError):
    """The lane was lost before this request's turn came: nothing is known of it."""


class OwnFault(EngineError):
    """The request's own inputs are to blame: no engine could answer it.

    Attributes:
        refusal: what its caller is told.
    """

    def __init__(self, given: str, output: str) -> None:
        expected = f"finite numbers, as output {output!r} holds NaN otherwise"
        self.refusal = InvalidRequest(f"inputs.{given}", "NaN or infinity", expected)
        super().__init__(self.refusal.detail)


class Ran(NamedTuple):
    """What came of a batch.

    Attributes:
        outcomes: for each request, in their order, its outputs, each (rows of it, ...), or what
            its group failed with.
        failed_s: seconds that went into groups that failed.
        failed: how many requests failed.
    """

    outcomes: list[Outputs | Exception]
    failed_s: float
    failed: int


def run(
    program: Program,
    requests: Sequence[InferRequest],
    specs: tuple[TensorSpec, ...],
    largest: int,
    alone: Sequence[bool] = (),
    paddings: Sequence[Padding] = (),
) -> Ran:
    """Run `requests`. A group fails where the engine raises anything, or answers with something
    else than was promised; a request fails where its own rows are answered by NaN.

    Args:
        specs: the outputs that were promised.
        largest: rows that the engine is given at once; a request with more runs in pieces.
        alone: for each request, whether it may share no run with another.
        paddings: those that the variant's card declares.
    """
    outcomes: list[Outputs | Exception] = [{} for _ in requests]
    failed_s = 0.0
    names = list(requests[0].inputs) if paddings else []
    fits = [padding.fit(each.inputs, names, paddings) for each in requests] if paddings else None
    groups = _alike(requests, fits)
    if True in alone:
        groups = [part for group in groups for part in _apart(group, alone)]
    groups.reverse()
    # Finds two culprits among all of them. An engine that fails on everything is soon known:
    # two that failed alone, where nobody was answered, are enough.
    halvings = 2 * len(requests).bit_length()
    answered = failed_alone = 0
    while groups:
        group = groups.pop()
        members = [requests[index] for index in group]
        rows = [request.rows for request in members]
        begun_s = time.monotonic()
        try:
            inputs: Mapping[str, Tensor]
            if fits is None:
                inputs = _concatenated(members, program, sum(rows), largest)
            else:
                shapes = dict(zip(names, fits[group[0]].shapes, strict=True))
                inputs = padding.filled([each.inputs for each in members], shapes, paddings)
            outputs = _infer(program, inputs, sum(rows), largest)
            check_outputs(outputs, specs, sum(rows))
            shares = _shares(outputs, rows)
            if fits is not None:
                shares = [
                    padding.cut(mine, fits[index].cuts)
                    for index, mine in zip(group, shares, strict=True)
                ]
        except Exception as error:  # engines have no common base for what they raise
            failed_s += time.monotonic() - begun_s
            if isinstance(error, LaneLost):
                for index in (index for left in groups for index in left):
                    outcomes[index] = NotRun("its lane was lost before its turn came")
                groups.clear()
            elif len(group) > 1 and halvings and (answered or failed_alone < 2):
                halvings -= 1
                half = len(group) // 2
                groups += [group[half:], group[:half]]
                continue
            failed_alone += len(group) == 1
            for index in group:
                outcomes[index] = error
            continue
        nan = _with_nan(outputs, specs)
        for index, mine in zip(group, shares, strict=True):
            fault = _nan_fault(mine, nan, requests[index]) if nan else None
            outcomes[index] = fault or mine
            answered += fault is None
    return Ran(outcomes, failed_s, len(requests) - answered)


def judged(outcomes: Sequence[Outputs | Exception], program: Program, card: VariantCard) -> Outcome:
    """What a batch says of its variant.

    Where nobody was answered, and nobody is known to be to blame, the engine runs one row that it
    has answered before: what fails on that is broken. What does not may yet be; that shows when
    another variant answers the same requests.
    """
    faults = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if any(isinstance(fault, LaneLost) for fault in faults):
        return "failure"
    if len(faults) < len(outcomes):
        return "success"
    if all(isinstance(fault, OwnFault) for fault in faults):
        return "none"
    try:
        control(program, card)
    except Exception:  # engines have no common base for what they raise
        return "failure"
    return "none"


def control(program: Program, card: VariantCard) -> None:
    """Run one row of zeros, which the engine answered when it was warmed up.

    Where it fails on that as well, what it failed on before is not to blame.

    Raises:
        EngineError: it answered with something else than its card promises, or with NaN.
    """
    inputs = {
        spec.name: blank(spec.datatype, (1, *(max(size, 1) for size in spec.shape[1:])))
        for spec in card.inputs
    }
    outputs = program.infer(inputs)
    check_outputs(outputs, card.outputs, 1)
    for name in _with_nan(outputs, card.outputs):
        raise EngineError(f"output {name!r} holds NaN")


def _with_nan(outputs: Outputs, specs: tuple[TensorSpec, ...]) -> list[str]:
    """The outputs that hold NaN. Infinities pass: a mask of logits is made of them."""
    return [
        spec.name for spec in specs if spec.datatype in _FLOATS and _has_nan(outputs[spec.name])
    ]


def _has_nan(tensor: Tensor) -> bool:
    if tensor.size <= _SMALL and tensor.dtype.char in "fd":
        # A sum of squares, infinities among them, is NaN where one of them is: half the time.
        squares = np.vdot(tensor, tensor)
        return bool(squares != squares)
    return bool(np.isnan(tensor).any())


def _nan_fault(mine: Outputs, names: Sequence[str], request: InferRequest) -> EngineError | None:
    """What is wrong with these outputs of one request, of which some hold NaN in some row."""
    for name in names:
        if not _has_nan(mine[name]):
            continue
        for given, tensor in request.inputs.items():
            if tensor.dtype.kind in "fV" and not np.isfinite(tensor).all():
                return OwnFault(given, name)
        return EngineError(f"output {name!r} holds NaN")
    return None


def _apart(group: list[int], alone: Sequence[bool]) -> list[list[int]]:
    """The group without those that run alone, and each of them."""
    together = [index for index in group if not alone[index]]
    single = [[index] for index in group if alone[index]]
    return [together, *single] if together else single


def _alike(requests: Sequence[InferRequest], fits: Sequence[padding.Fit] | None) -> list[list[int]]:
    """The requests' indices, grouped by the shape of a row, in order of their first ones."""
    if len(requests) == 1:
        return [[0]]
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for index, request in enumerate(requests):
        # Every request has all inputs, and in the order of the first: theirs may differ.
        if fits is not None:
            shape = fits[index].shapes
        else:
            shape = tuple(request.inputs[name].shape[1:] for name in requests[0].inputs)
        groups.setdefault(shape, []).append(index)
    return list(groups.values())


def _concatenated(
    requests: Sequence[InferRequest], program: Program, rows: int, largest: int
) -> Mapping[str, Tensor]:
    inputs = requests[0].inputs
    if len(requests) == 1:
        return inputs
    # Straight to where the program wants them, if it has a place for them.
    space: Mapping[str, Tensor] = {}
    room = getattr(program, "room", None)
    if room is not None and rows <= largest:
        space = room(
            [(name, tensor.dtype, (rows, *tensor.shape[1:])) for name, tensor in inputs.items()]
        )
    return {
        name: np.concatenate([request.inputs[name] for request in requests], out=space.get(name))
        for name in inputs
    }


def _infer(program: Program, inputs: Mapping[str, Tensor], rows: int, largest: int) -> Outputs:
    return program.infer(inputs) if rows <= largest else _in_pieces(program, inputs, largest)


def _shares(outputs: Mapping[str, Tensor], rows: Sequence[int]) -> list[Outputs]:
    """The outputs of each request, which has `rows` of them; views, not copies."""
    shares: list[Outputs] = []
    first = 0
    for count in rows:
        last = first + count
        shares.append({name: tensor[first:last] for name, tensor in outputs.items()})
        first = last
    return shares


def _in_pieces(program: Program, inputs: Mapping[str, Tensor], largest: int) -> Outputs:
    rows = len(next(iter(inputs.values())))
    pieces = [
        program.infer({name: tensor[start : start + largest] for name, tensor in inputs.items()})
        for start in range(0, rows, largest)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
