"""A task's padding: what it declares fits the network's tensors, and changes none of its answers.

The gateway fills rows up as the card says, and nobody looks at the answers any more. So they are
looked at here: the network must answer rows that were filled up as it answers them alone.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from compressors.errors import TaskError
from compressors.interface import Interface, run
from compressors.task import Array
from gateway import padding
from gateway.engines import EngineError
from router.card import equal_sizes
from router.padding import check as check_declared

# What fp32 arithmetic over more positions explains.
_TOLERANCE = 1e-3


def check(module: nn.Module, interface: Interface) -> None:
    """Run the network on the interface's example, alone and filled up.

    Raises:
        TaskError: the declaration does not fit the inputs and outputs, or filling up changes an
            answer.
    """
    if not interface.padding:
        return
    try:
        equal = equal_sizes(interface.inputs, interface.measured_shapes)
        check_declared(interface.padding, interface.inputs, interface.outputs, equal)
    except ValueError as error:
        raise TaskError(str(error)) from error
    names = tuple(spec.name for spec in interface.outputs)
    inputs, filled, cuts = example(interface)
    alone = run(module, inputs, names)
    try:
        got = padding.cut(run(module, filled, names), cuts)
    except EngineError as error:
        raise TaskError(f"padding: {error}") from error
    for name, expected in alone.items():
        if expected.shape != got[name].shape:
            raise TaskError(
                f"padding: output {name!r} has shape {got[name].shape} for rows that were filled "
                f"up, and {expected.shape} for the same rows alone; padding.outputs says what to "
                "cut"
            )
        if not np.allclose(expected, got[name], rtol=_TOLERANCE, atol=_TOLERANCE):
            worst = float(np.abs(expected - got[name]).max())
            raise TaskError(
                f"padding: filling rows up changes output {name!r} by up to {worst:.3g}; the "
                "network must ignore what its mask leaves out"
            )


def example(
    interface: Interface,
) -> tuple[dict[str, Array], dict[str, Array], tuple[padding.Cut, ...]]:
    """The example in sizes that are no buckets, the same filled up, and what to cut off again."""
    inputs = dict(interface.example)
    for one in interface.padding:
        own = min(inputs[each.input].shape[each.dimension] for each in one.inputs)
        size = min(own, one.buckets[-1])
        while size > 1 and size in one.buckets:
            size -= 1
        for each in one.inputs:
            inputs[each.input] = np.take(inputs[each.input], np.arange(size), axis=each.dimension)
    names = list(inputs)
    fit = padding.fit(inputs, names, interface.padding)
    shapes = dict(zip(names, fit.shapes, strict=True))
    return inputs, padding.filled([inputs], shapes, interface.padding), fit.cuts
