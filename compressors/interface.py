"""A network's interface: names, datatypes and shapes of what goes in and comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import nn

from compressors.errors import TaskError
from compressors.task import Array, Samples, Task
from gateway.engines import NUMPY_TYPES
from router.card import Datatype, TensorSpec
from router.padding import Padding

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
        constructor_digest: SHA-256 of the file that it is written in; None with no constructor.
        padding: what the task declares of its free dimensions.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    example: dict[str, Array]
    constructor: str | None = None
    constructor_digest: str | None = None
    padding: tuple[Padding, ...] = ()

    def tensors(self, arrays: dict[str, Array]) -> tuple[torch.Tensor, ...]:
        """The arrays as tensors, in the order of the network's `forward`."""
        return tuple(torch.from_numpy(np.ascontiguousarray(arrays[s.name])) for s in self.inputs)

    @property
    def measured_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of inputs with a free size besides the batch: the shape of the example's rows."""
        return {
            spec.name: tuple(map(int, self.example[spec.name].shape[1:]))
            for spec in self.inputs
            if -1 in spec.shape[1:]
        }

    def resized(self) -> dict[str, Array]:
        """The example with other sizes in the free dimensions; as it is where only the batch is
        free. Equal sizes stay equal."""
        return {spec.name: _resized(self.example[spec.name], spec) for spec in self.inputs}


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
    """The interface of `module`, found by running it on the first `samples`; twice where the task
    has free dimensions, to see which sizes of its outputs follow them.

    Raises:
        TaskError: fewer than 2 samples, a datatype that no engine takes, outputs that are not one
            row per sample, or free dimensions that the inputs do not have or the network fixes.
            Whatever the network raises on the samples as they are passes through.
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
    if unknown := sorted(set(task.free_dimensions) - set(example)):
        raise TaskError(f"free_dimensions: there is no input {', '.join(unknown)}")
    interface = Interface(
        tuple(
            _spec("input", name, array, _free(task, name, array)) for name, array in example.items()
        ),
        tuple(_spec("output", name, array) for name, array in outputs.items()),
        example,
        spec := getattr(task, "spec", None),
        getattr(task, "source_digest", None) if spec else None,
        tuple(task.padding),
    )
    if not task.free_dimensions:
        return interface
    try:
        others = run(module, interface.resized(), task.outputs)
    except Exception as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        sizes = ", ".join(f"{name} {a.shape[1:]}" for name, a in interface.resized().items())
        raise TaskError(
            f"free_dimensions: the network does not run with inputs of {sizes}: {told[0]}"
        ) from error
    followed = (
        _spec(
            "output",
            name,
            array,
            tuple(d for d in range(1, array.ndim) if array.shape[d] != others[name].shape[d]),
        )
        for name, array in outputs.items()
    )
    return replace(interface, outputs=tuple(followed))


def _free(task: Task, name: str, array: Array) -> tuple[int, ...]:
    dimensions = tuple(task.free_dimensions.get(name, ()))
    for dimension in dimensions:
        if not 1 <= dimension < array.ndim:
            raise TaskError(
                f"free_dimensions: {name}: expected numbers from 1 to {array.ndim - 1}, as the "
                f"samples have shape {array.shape}, got {dimension}"
            )
        # An exporter takes a 1 for a constant.
        if array.shape[dimension] < 2:
            raise TaskError(
                f"free_dimensions: {name}: dimension {dimension} has size "
                f"{array.shape[dimension]} in the samples; expected at least 2"
            )
    return dimensions


def _resized(array: Array, spec: TensorSpec) -> Array:
    for dimension, size in enumerate(spec.shape[1:], start=1):
        if size == -1:
            before = array.shape[dimension]
            # Rather smaller: a network may know no position beyond those of its samples.
            after = before // 2 if before >= 4 else before + 1
            array = np.take(array, np.arange(after) % before, axis=dimension)
    return array


def _spec(kind: str, name: str, array: Array, free: tuple[int, ...] = ()) -> TensorSpec:
    datatype = _DATATYPES.get(array.dtype)
    if datatype is None:
        raise TaskError(
            f"{kind} {name!r}: datatype {array.dtype} is not served; expected one of "
            f"{', '.join(str(dtype) for dtype in _DATATYPES)}"
        )
    shape = tuple(
        -1 if dimension == 0 or dimension in free else int(size)
        for dimension, size in enumerate(array.shape)
    )
    return TensorSpec(name=name, datatype=cast(Datatype, datatype), shape=shape)


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
