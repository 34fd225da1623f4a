"""How much weights matter: from a weight, and what it was seen to do, to importances.

Each gives a non-negative tensor of the weight's shape; the least important weights go first. What
all but `random` and `magnitude` need comes from `compressors.surgery.observe`. A channel's
importance is the sum over its weights (`by_channel`), or what its non-linearity lets through
(`apoz`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from compressors.surgery.observe import LayerStatistics, Seen

Criterion = Literal["random", "magnitude", "wanda", "taylor", "obd"]

NEEDS: dict[Criterion, frozenset[Seen]] = {
    "random": frozenset(),
    "magnitude": frozenset(),
    "wanda": frozenset({"moments"}),
    "taylor": frozenset({"gradient"}),
    "obd": frozenset({"squared_gradient"}),
}
"""What to observe for each."""


def random(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1): what any other criterion has to beat."""
    return torch.rand(weight.shape, generator=generator)


def magnitude(weight: Tensor) -> Tensor:
    """|w| (Han et al. 2015, arXiv 1506.02626)."""
    return weight.detach().abs()


def wanda(weight: Tensor, moments: Tensor) -> Tensor:
    """|w| ||x||, a weight times the norm of its input (Sun et al. 2023, arXiv 2306.11695).

    The norm is the root mean square, `moments` (groups, columns): between layers that see
    different numbers of rows, sums would compare how many.
    """
    return magnitude(weight) * _as_weight(moments.sqrt(), weight)


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """|w g|, the first-order change of the loss when the weight becomes zero (Molchanov et al.
    2017 and 2019, arXiv 1611.06440 and 1906.10771)."""
    return (weight.detach() * gradient).abs()


def obd(weight: Tensor, squared_gradient: Tensor) -> Tensor:
    """w^2 h / 2, the second-order change of the loss at a minimum, h the Hessian's diagonal (LeCun,
    Denker & Solla 1989, "Optimal Brain Damage"), by the empirical Fisher: h = mean of g^2."""
    return weight.detach().square() * squared_gradient / 2


def apoz(zeros: Tensor) -> Tensor:
    """(channels,) 1 - the average percentage of zeros after the non-linearity (Hu et al. 2016,
    arXiv 1607.03250)."""
    return 1 - zeros


def by_channel(importance: Tensor, dimension: int = 0) -> Tensor:
    """(channels,) the sum over a channel's weights: outputs at dimension 0, inputs at 1."""
    return importance.transpose(0, dimension).flatten(1).sum(1)


def importances(
    criterion: Criterion,
    weights: Mapping[str, Tensor],
    statistics: Mapping[str, LayerStatistics],
    seed: int,
) -> dict[str, Tensor]:
    """Importance of every weight of `weights` for which `statistics` has what the criterion needs;
    the others, such as layers that no sample reaches, are left out."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in weights.items():
        seen = statistics.get(name, LayerStatistics())
        match criterion:
            case "random":
                found[name] = random(weight, generator)
            case "magnitude":
                found[name] = magnitude(weight)
            case "wanda" if seen.moments is not None:
                found[name] = wanda(weight, seen.moments)
            case "taylor" if seen.gradient is not None:
                found[name] = taylor(weight, seen.gradient)
            case "obd" if seen.squared_gradient is not None:
                found[name] = obd(weight, seen.squared_gradient)
    return found


def _as_weight(columns: Tensor, weight: Tensor) -> Tensor:
    """(groups, columns) as it meets a weight: (outputs, ...), each output with its group's."""
    outputs = weight.shape[0]
    return columns.repeat_interleave(outputs // len(columns), 0).reshape(weight.shape)
