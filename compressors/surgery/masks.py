"""Which weights go: masks from importances, by a share to remove or by a pattern, and their upkeep.

A mask has the weight's shape and is True where the weight stays. Ties go to the earlier weight, so
that a mask has exactly the number of zeros that was asked for.

A pattern "n:m" keeps n of every m neighbours along the inputs ("2:4", Mishra et al. 2021, arXiv
2104.08378); for a convolution those are m channels at one place of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from compressors.technique import Settings

Scope = Literal["output", "layer", "global"]
Masks = dict[str, Tensor]


class Amount(Settings):
    """How much to remove: a share, or a pattern, whose share is its own."""

    sparsity: float = Field(0.5, gt=0, lt=1, description="share of the weights to set to zero")
    pattern: str | None = Field(
        None,
        pattern=r"^[1-9]\d?:[1-9]\d?$",
        description='"n:m": n weights stay of every m along the inputs; None: wherever they lie',
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_pattern(cls, given: Any) -> Any:
        pattern = given.get("pattern") if isinstance(given, dict) else None
        if not isinstance(pattern, str) or not pattern.replace(":", "", 1).isdigit():
            return given
        stay, of = kept(pattern)
        if stay >= of:
            raise ValueError(f"pattern: expected n below m in n:m, got {pattern!r}")
        share = 1 - stay / of
        if given.get("sparsity", share) != share:
            raise ValueError(f"sparsity: a pattern {pattern!r} has {share:g}, leave it out")
        return {**given, "sparsity": share}


def kept(pattern: str) -> tuple[int, int]:
    """n and m of "n:m"."""
    stay, _, of = pattern.partition(":")
    return int(stay), int(of)


def sparsest(importances: Mapping[str, Tensor], sparsity: float, scope: Scope) -> Masks:
    """Masks without the least important weights: the share `sparsity`, to the nearest count, of
    each output's weights, of each layer's or of all together."""
    match scope:
        case "global":
            flat = torch.cat([importance.flatten() for importance in importances.values()])
            sizes = [importance.numel() for importance in importances.values()]
            parts = torch.split(most(flat[None], sparsity)[0], sizes)
            shaped = zip(importances.items(), parts, strict=True)
            return {name: part.reshape(tensor.shape) for (name, tensor), part in shaped}
        case "layer":
            return {
                name: most(tensor.reshape(1, -1), sparsity).reshape(tensor.shape)
                for name, tensor in importances.items()
            }
        case "output":
            return {
                name: most(tensor.flatten(1), sparsity).reshape(tensor.shape)
                for name, tensor in importances.items()
            }


def patterned(importances: Mapping[str, Tensor], pattern: str) -> Masks:
    """Masks that keep the n most important of every m neighbours along the inputs. Weights whose
    inputs do not come in multiples of m are left out, and so stay whole."""
    stay, of = kept(pattern)
    found = {}
    for name, importance in importances.items():
        if importance.shape[1] % of == 0:
            by_input = importance.movedim(1, -1)
            mask = most(by_input.reshape(-1, of), 1 - stay / of)
            found[name] = mask.reshape(by_input.shape).movedim(-1, 1)
    return found


def gone_first(importances: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """The importances, with what the masks leave out below all else."""
    return {
        name: tensor.masked_fill(~masks[name], -1) if name in masks else tensor
        for name, tensor in importances.items()
    }


def apply(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Set to zero, in place, what the masks leave out."""
    with torch.no_grad():
        for name, mask in masks.items():
            # Not a product: a weight that is not finite would stay so, and zeros would get signs.
            weights[name].masked_fill_(~mask, 0)


def hold(weights: Mapping[str, Tensor], masks: Masks) -> Callable[[], None]:
    """`apply`, for training to call after every step of its optimiser."""
    return lambda: apply(weights, masks)


def cubic(final: float, step: int, steps: int) -> float:
    """Sparsity after `step` of `steps`: s (1 - (1 - t)^3) at t = step / steps, quick while there is
    much to spare (Zhu & Gupta 2017, arXiv 1710.01878)."""
    return final * (1 - (1 - step / steps) ** 3)


@dataclass(frozen=True)
class Sparsity:
    """Weights that are zero, of how many, by name."""

    zeros: dict[str, int]
    sizes: dict[str, int]

    @property
    def share(self) -> float:
        return sum(self.zeros.values()) / max(1, sum(self.sizes.values()))

    def __str__(self) -> str:
        return f"{self.share:.1%} of {sum(self.sizes.values()):,} weights are zero"


def sparsity_of(weights: Mapping[str, Tensor | nn.Parameter]) -> Sparsity:
    """How many of the weights are exactly zero."""
    return Sparsity(
        {name: int((weight == 0).sum()) for name, weight in weights.items()},
        {name: weight.numel() for name, weight in weights.items()},
    )


def most(rows: Tensor, sparsity: float) -> Tensor:
    """(rows, columns) True but at each row's least important round(columns x sparsity) places."""
    mask = torch.ones_like(rows, dtype=torch.bool)
    gone = round(rows.shape[1] * sparsity)
    least = rows.argsort(dim=1, stable=True)[:, :gone]
    return mask.scatter_(1, least, False)
