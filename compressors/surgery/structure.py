"""Structured pruning: whole channels, neurons or heads ("units") are removed, in rounds.

Each round ranks the units that are there (`compressors.surgery.units`), removes those that matter
least, and fine-tunes what stays. A layer's scores are divided by their mean before layers are
compared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from compressors import training
from compressors.errors import NotApplicable
from compressors.macs import macs
from compressors.surgery.units import Criterion, Units, importance, tensors
from compressors.technique import Context
from compressors.training import Training

_BISECTIONS = 10  # a thousandth of the ratio: finer than any rounding of counts


class Pruning(Training):
    """The settings that all structured pruning shares."""

    epochs: int = Field(
        3, ge=0, le=1000, description="passes over the training split, each round; 0 for none"
    )
    criterion: Criterion = Field("magnitude", description="by what the units that stay are chosen")
    scope: Literal["layer", "global"] = Field(
        "layer", description="the same share of every layer, or one ranking over all of them"
    )
    ratio: float = Field(0.5, gt=0, lt=1, description="units to remove, as a share of all")
    macs: float | None = Field(
        None, gt=0, lt=1, description="multiplications to keep, as a share; instead of `ratio`"
    )
    least: float = Field(
        0.1, gt=0, le=1, description="share of its units that a layer keeps in any case"
    )
    round_to: int = Field(8, ge=1, le=64, description="units that stay are a multiple of this")
    rounds: int = Field(1, ge=1, le=100, description="steps to the target, fine-tuned in between")
    samples: int = Field(
        256, ge=1, le=100_000, description="training samples that the criterion looks at"
    )

    @model_validator(mode="after")
    def _one_target(self) -> Pruning:
        if self.macs is not None:
            self.refuse("ratio", because="macs says how much stays")
        return self


Find = Callable[[nn.Module, tuple[Tensor, ...]], list[Units]]
"""The units of a network, given inputs to run it on; it may raise NotApplicable."""


def prune(
    name: str, what: str, module: nn.Module, context: Context, config: Pruning, find: Find
) -> None:
    """Remove units from `module`, in place, and fine-tune it, `config.rounds` times.

    Args:
        name: the technique's, for messages.
        what: is removed, in the plural.

    Raises:
        NotApplicable: nothing can go, or the network fails without it.
        NotFinite: the loss became NaN.
    """
    example = context.task.samples("train").batch(slice(0, 2))
    inputs = tensors(example)
    # Tracing and criteria follow gradients, and so does the fine-tuning that comes next.
    module.eval().requires_grad_(True)
    before = shapes(module, inputs)
    whole = 0 if config.macs is None else macs(module, inputs)
    sizes = {units.name: units.count for units in find(module, inputs)}
    done = False
    for index in range(config.rounds):
        share = (index + 1) / config.rounds
        units = find(module, inputs)
        if not units:
            break
        scores = importance(units, module, context, config.criterion, config.samples)

        def plan(ratio: float, scores: dict[str, Tensor] = scores) -> dict[str, list[int]]:
            return choose(scores, sizes, ratio, config)

        if config.macs is None:
            gone = plan(1 - (1 - config.ratio) ** share)
        else:
            gone = _to_macs(name, config.macs**share * whole, plan, module, inputs, find)
        if not gone:
            continue
        done = True
        remove(units, gone)
        try:
            after = shapes(module, inputs)
        except Exception as error:
            raise NotApplicable(f"{name}: the network fails with fewer {what}: {error}") from error
        if after != before:
            raise NotApplicable(f"{name}: the outputs would change from shape {before} to {after}")
        finetune(module, context, config, index / config.rounds, share)
    if not done:
        target = f"{config.macs:.0%} of MACs" if config.macs else f"{config.ratio:.0%} fewer"
        raise NotApplicable(
            f"{name}: no {what} can be removed from this network in multiples of "
            f"{config.round_to} (criterion {config.criterion}, {target})"
        )


def remove(units: Sequence[Units], gone: Mapping[str, list[int]]) -> None:
    """Take out of each of `units` the indices that `gone` has under its name."""
    for group in units:
        if group.name in gone:
            group.remove(gone[group.name])


def choose(
    scores: Mapping[str, Tensor], sizes: Mapping[str, int], ratio: float, config: Pruning
) -> dict[str, list[int]]:
    """The units to remove now, by place, so that `1 - ratio` of the first counts `sizes` stay;
    places that lose nothing are left out.

    Counts that stay are rounded up to a multiple of `config.round_to`.
    """
    keep = {name: sizes[name] * (1 - ratio) for name in scores}
    if config.scope == "global" and scores:
        ranked = {name: s / s.mean().clamp(min=1e-30) for name, s in scores.items()}
        staying = max(1, round(sum(keep.values())))
        every = torch.cat(list(ranked.values())).sort(descending=True).values
        threshold = every[min(staying, len(every)) - 1]
        keep = {name: float((ranked[name] >= threshold).sum()) for name in scores}
    gone = {}
    for name, score in scores.items():
        # Rounded first: 0.3 of 10 is 3.0000000000000004.
        least = max(round(keep[name], 6), sizes[name] * config.least)
        count = max(1, math.ceil(round(least, 6) / config.round_to)) * config.round_to
        if count < len(score):
            lightest = score.argsort(stable=True)[: len(score) - count]
            gone[name] = sorted(lightest.tolist())
    return gone


def _to_macs(
    name: str,
    target: float,
    plan: Callable[[float], dict[str, list[int]]],
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    find: Find,
) -> dict[str, list[int]]:
    """What the smallest ratio removes with which at most `target` multiplications stay."""

    def fits(gone: dict[str, list[int]]) -> bool:
        tried = copy.deepcopy(module)
        remove(find(tried, inputs), gone)
        try:
            return macs(tried, inputs) <= target
        except Exception as error:
            raise NotApplicable(f"{name}: the network fails when smaller: {error}") from error

    most = plan(1 - 1e-9)
    if not most or not fits(most):
        raise NotApplicable(
            f"{name}: even with all that can go removed, more than {target:.3g} multiplications "
            "stay"
        )
    low, high, best = 0.0, 1.0, most
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        gone = plan(middle)
        if gone == best or fits(gone):
            high, best = middle, gone
        else:
            low = middle
    return best


def finetune(
    module: nn.Module, context: Context, config: Training, begun: float, ended: float
) -> None:
    """Train for `config.epochs`, none at all for 0; the progress goes from `begun` to `ended`."""
    if config.epochs == 0:
        module.eval()
        return
    how = Training(**config.model_dump(include=set(Training.model_fields)))

    def told(fraction: float, text: str) -> None:
        context.progress(begun + (ended - begun) * fraction, text)

    training.train(module, context.task, how, seed=context.seed, progress=told)


def shapes(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
    """Of the outputs of `module` on `inputs`."""
    with torch.no_grad():
        returned: Any = module(*inputs)
    outputs = returned if isinstance(returned, tuple | list) else (returned,)
    return [tuple(output.shape) for output in outputs]
