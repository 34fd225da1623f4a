"""A network's interface: names, datatypes and shapes of what goes in and comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from compressors.errors import TaskError
from compressors.task import Array, Samples, Task
from gateway.engines import NUMPY_TYPES
from router.card import Datatype, TensorSpec

_DATATYPES = {dtype: name for name, dtype in NUMPY_TYPES.items()}


@dataclass(frozen=True)
class Interface:
    """What every variant of a task must look like from outside.

    Attributes:
        inputs, outputs: in the network's own order. A size of -1 is free: the batch, the task's
            free dimensions, and sizes of outputs that follow them.
        example: a few real samples by input name; at least 2, because an export from a batch of
            one would take the 1 for a constant.
        constructor: the task as `gearshift compress` takes it, found again from any folder; None
            when the task came from no file or module.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    example: dict[str, Array]
    constructor: str | None = None

    def tensors(self, arrays: dict[str, Array]) -> tuple[torch.Tensor, ...]:
        """The arrays as tensors, in the order of the network's `forward`."""
        return tuple(torch.from_numpy(np.ascontiguousarray(arrays[s.name])) for s in self.inputs)


def run(
    module: nn.Module, inputs: dict[str, Array], names: tuple[str, ...], batch: int = 128
) -> dict[str, Array]:
    """The network's outputs by name for `inputs` (each (n, ...)), computed `batch` at a time.

    Raises:
        TaskError: the network returns another number of outputs than `names`, or no tensors.
    """
    count = len(next(iter(inputs.values())))
    parts: list[tuple[Array, ...]] = []
    with torch.inference_mode():
        for start in range(0, count, batch):
            rows = (
                torch.from_numpy(np.ascontiguousarray(a[start : start + batch]))
                for a in inputs.values()
            )
            parts.append(tuple(t.numpy() for t in _as_tensors(module(*rows), names)))
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}


def describe(task: Task, module: nn.Module, samples: Samples) -> Interface:
    """The interface of `module`, found by running it on the first `samples`.

    Raises:
        TaskError: fewer than 2 samples, a datatype that no engine takes, or outputs that are not
            one row per sample. Whatever the network raises passes through.
    """
    if len(samples) < 2:
        raise TaskError(f"expected at least 2 samples to export with, got {len(samples)}")
    example = {name: array[: min(4, len(samples))] for name, array in samples.inputs.items()}
    count = len(next(iter(example.values())))
    outputs = run(module, example, task.outputs)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != count:
            raise TaskError(
                f"output {name!r}: expected one row for each of {count} samples, "
                f"got shape {array.shape}"
            )
    return Interface(
        tuple(_spec("input", name, array) for name, array in example.items()),
        tuple(_spec("output", name, array) for name, array in outputs.items()),
        example,
        getattr(task, "spec", None),
    )


def _spec(kind: str, name: str, array: Array) -> TensorSpec:
    datatype = _DATATYPES.get(array.dtype)
    if datatype is None:
        raise TaskError(
            f"{kind} {name!r}: datatype {array.dtype} is not served; expected one of "
            f"{', '.join(str(dtype) for dtype in _DATATYPES)}"
        )
    return TensorSpec(
        name=name, datatype=cast(Datatype, datatype), shape=(-1, *map(int, array.shape[1:]))
    )


def _as_tensors(returned: object, names: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
    tensors = returned if isinstance(returned, tuple | list) else (returned,)
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        kinds = ", ".join(type(tensor).__name__ for tensor in tensors)
        raise TaskError(f"the network must return a tensor or a tuple of tensors, got {kinds}")
    if len(tensors) != len(names):
        raise TaskError(
            f"the task names {len(names)} outputs ({', '.join(names)}), "
            f"the network returns {len(tensors)}"
        )
    return tuple(tensors)
