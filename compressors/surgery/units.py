"""Units: channels, neurons or heads that can be removed whole, and how much each matters.

How much a set of weights that goes together matters, by criterion (W the set's weights):

    magnitude   sqrt(sum W^2), the group's L2 norm (after Li et al. 2017, arXiv 1608.08710)
    wanda       sum |w| ||x|| over the weights that read the unit (after arXiv 2306.11695)
    apoz        1 - the average percentage of zeros after the non-linearity (arXiv 1607.03250)
    taylor      mean over batches of |sum w g| over the weights that read the unit: the gradient of
                a gate on it (Michel et al. 2019, arXiv 1905.10650; Molchanov et al. 2019,
                arXiv 1906.10771)
    obd         sum w^2 h / 2, h the Hessian's diagonal by the empirical Fisher information
    random      uniform: what any other has to beat
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from compressors.surgery import criteria, observe
from compressors.surgery.observe import Seen
from compressors.task import Samples
from compressors.technique import Context

Criterion = Literal["magnitude", "wanda", "apoz", "taylor", "obd", "random"]

_TOGETHER = 8  # samples a gradient is averaged over: few, so that opposite ones do not cancel
_OBSERVED: dict[Criterion, Seen] = {"wanda": "moments", "apoz": "zeros", "obd": "squared_gradient"}


@dataclass(frozen=True)
class Slot:
    """Where units lie in one weight.

    Attributes:
        weight: its dotted name.
        dimension: of the weight along which units lie.
        units: (size of that dimension,) the unit at each place; -1 where there is none of these.
        reads: whether the weight reads the units, or makes them.
    """

    weight: str
    dimension: int
    units: Tensor
    reads: bool


@dataclass(frozen=True)
class Units:
    """What can be removed from one place of a network.

    Attributes:
        name: of the place; the same after a removal.
        count: how many units there are.
        slots: the weights that they are in.
        remove: takes out the units of these indices, in place.
    """

    name: str
    count: int
    slots: tuple[Slot, ...]
    remove: Callable[[list[int]], None]


def importance(
    units: Sequence[Units], module: nn.Module, context: Context, criterion: Criterion, count: int
) -> dict[str, Tensor]:
    """(count,) scores by place, the lightest to go first. Places that the criterion says nothing
    about are left out. `count` is of the samples of `train` that it may look at."""
    seed = context.seed
    weights = dict(module.named_parameters(remove_duplicate=False))
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        return {g.name: torch.rand(g.count, generator=generator) for g in units}
    if criterion == "magnitude":
        squares = {slot.weight: weights[slot.weight] for g in units for slot in g.slots}
        of_weights = {name: criteria.magnitude(w).square() for name, w in squares.items()}
        return {g.name: _summed(g, g.slots, of_weights).sqrt() for g in units if g.slots}
    samples = observe.draw(context.task, count, seed)
    if criterion == "taylor":
        return _gates(units, module, context, samples)
    seen = observe.observe(
        module,
        context.task,
        samples,
        [_OBSERVED[criterion]],
    )
    found = {}
    if criterion == "apoz":
        for g in units:
            silent = [
                (slot, zeros)
                for slot in g.slots
                if not slot.reads and (zeros := _zeros(seen, slot.weight)) is not None
            ]
            if silent:
                parts = [_scattered(g, slot, criteria.apoz(zeros)) for slot, zeros in silent]
                found[g.name] = torch.stack(parts).mean(0)
        return found
    by_weight = criteria.importances(criterion, {name: weights[name] for name in seen}, seen, seed)
    for g in units:
        slots = [slot for slot in g.slots if slot.weight in by_weight]
        if criterion == "wanda":
            slots = [slot for slot in slots if slot.reads]
        if slots:
            found[g.name] = _summed(g, slots, by_weight)
    return found


def _zeros(seen: Mapping[str, observe.LayerStatistics], weight: str) -> Tensor | None:
    zeros = seen[weight].zeros if weight in seen else None
    # A smooth non-linearity has none, and then there is nothing to rank by.
    return zeros.float() if zeros is not None and bool(zeros.any()) else None


def _gates(
    units: Sequence[Units], module: nn.Module, context: Context, samples: Samples
) -> dict[str, Tensor]:
    weights = dict(module.named_parameters(remove_duplicate=False))
    reading = {g.name: [slot for slot in g.slots if slot.reads] for g in units}
    names = sorted({slot.weight for slots in reading.values() for slot in slots})
    sums = {g.name: torch.zeros(g.count) for g in units if reading[g.name]}
    for start in range(0, len(samples), _TOGETHER):
        part = samples.batch(slice(start, start + _TOGETHER))
        with torch.enable_grad():
            returned = module(*tensors(part))
            outputs = returned if isinstance(returned, tuple | list) else (returned,)
            loss = context.task.loss(tuple(outputs), torch.from_numpy(part.targets.copy()))
            found = torch.autograd.grad(loss, [weights[n] for n in names], allow_unused=True)
        products = {
            n: weights[n].detach() * g for n, g in zip(names, found, strict=True) if g is not None
        }
        for group in units:
            slots = [slot for slot in reading[group.name] if slot.weight in products]
            if slots:
                sums[group.name] += _summed(group, slots, products).abs() * len(part)
        context.progress(0.0, "looking at calibration samples")
    return sums


def _summed(units: Units, slots: Sequence[Slot], values: Mapping[str, Tensor]) -> Tensor:
    """(count,) of `values`, tensors like the weights, the sum over each unit's part."""
    total = torch.zeros(units.count)
    for slot in slots:
        value = values[slot.weight]
        if value.ndim > 1:
            value = criteria.by_channel(value, slot.dimension)
        total += _scattered(units, slot, value)
    return total


def _scattered(units: Units, slot: Slot, values: Tensor) -> Tensor:
    there = slot.units >= 0
    return torch.zeros(units.count).index_add_(0, slot.units[there], values[there].float())


def tensors(samples: Samples) -> tuple[Tensor, ...]:
    """The inputs of `samples`, in the order of the network's `forward`."""
    return tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in samples.inputs.values())
