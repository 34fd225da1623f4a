"""lottery-ticket: a sparse network that trains from an early state as well as the whole one did
(Frankle & Carbin 2019, "The Lottery Ticket Hypothesis", arXiv 1803.03635).

The network is trained from random weights; its state after `rewind_epoch` epochs is kept (Frankle
et al. 2019, arXiv 1903.01611). Then, `rounds` times: the smallest of the weights that are left go,
the same share each time; what stays is set back to the state that was kept and trained again from
there on, to the end of the same schedule of learning rates. With `rewind = "learning-rate"` the
weights go on as trained, and the schedule alone is set back (Renda, Frankle & Carbin 2020, arXiv
2003.02389).

For studying sparse networks: it trains `rounds` + 1 times, and no engine here skips a zero.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from compressors import training
from compressors.errors import NotApplicable
from compressors.surgery.criteria import magnitude
from compressors.surgery.masks import Masks, apply, gone_first, hold, sparsest, sparsity_of
from compressors.surgery.observe import weights_of
from compressors.technique import Context, Network, Technique
from compressors.training import Training


class _Config(Training):
    epochs: int = Field(4, ge=1, le=1000, description="of the first training, from its start")
    sparsity: float = Field(0.8, gt=0, lt=1, description="share of weights at zero in the end")
    rounds: int = Field(3, ge=1, le=100, description="of pruning, rewinding and training again")
    rewind: Literal["weights", "learning-rate"] = Field(
        "weights", description="what is set back: weights and schedule, or the schedule alone"
    )
    rewind_epoch: int = Field(1, ge=0, le=999, description="epochs before the state to go back to")
    start: Literal["random", "network"] = Field(
        "random", description="first weights: drawn anew, or the trained network's own"
    )
    scope: Literal["layer", "global"] = Field(
        "global", description="where the share holds: in each layer, or over all"
    )

    @model_validator(mode="before")
    @classmethod
    def _early_by_default(cls, given: Any) -> Any:
        # One epoch leaves none to go back over; its start is the state to go back to.
        if isinstance(given, dict) and given.get("epochs") == 1:
            return {"rewind_epoch": 0, **given}
        return given

    @model_validator(mode="after")
    def _something_is_left_to_train(self) -> _Config:
        if self.rewind_epoch >= self.epochs:
            raise ValueError(
                f"rewind_epoch: expected less than epochs ({self.epochs}), got {self.rewind_epoch}"
            )
        return self


class _LotteryTicket(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = (
        "Trains anew, prunes, goes back to an early state and trains what is left, in rounds. "
        "Smaller once compressed; no faster."
    )

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The ticket, trained.

        Raises:
            NotApplicable: there is no weight to remove, or some cannot be drawn anew.
            NotFinite: the loss became NaN.
        """
        module = network.module
        weights = weights_of(module)
        if not weights:
            raise NotApplicable("lottery-ticket: no linear, convolutional or recurrent layer")
        training.thaw(module, "lottery-ticket")
        if config.start == "random":
            draw_anew(module, context.seed)
        masks: Masks = {}
        early = _train(module, context, config, masks, 0)
        for index in range(1, config.rounds + 1):
            share = 1 - (1 - config.sparsity) ** (index / config.rounds)
            magnitudes = {name: magnitude(weight) for name, weight in weights.items()}
            masks = sparsest(gone_first(magnitudes, masks), share, config.scope)
            if config.rewind == "weights":
                rewind(module, early, masks)
            else:
                apply(weights, masks)
            _train(module, context, config, masks, index)
        if not any(sparsity_of(weights).zeros.values()):
            raise NotApplicable(
                f"lottery-ticket: too few weights to remove {config.sparsity:.1%} of them"
            )
        return replace(network, module=module)


TECHNIQUE = _LotteryTicket()


def rewind(module: nn.Module, state: dict[str, Any], masks: Masks) -> None:
    """Set `module` back to `state`, and to zero what the masks leave out."""
    module.load_state_dict(state)
    apply(weights_of(module), masks)


def draw_anew(module: nn.Module, seed: int) -> None:
    """First weights as the layers' own `reset_parameters` draws them, by seed.

    Raises:
        NotApplicable: a parameter belongs to a module without one; the message names it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The outer ones last: attention sets its projections' biases after they drew them.
        for name, part in reversed(list(module.named_modules())):
            reset = getattr(part, "reset_parameters", None) or getattr(
                part, "_reset_parameters", None
            )
            own = [key for key, _ in part.named_parameters(recurse=False)]
            if callable(reset):
                reset()
            elif own:
                raise NotApplicable(
                    f"lottery-ticket: {name or 'the network'} has {', '.join(own)} and no "
                    'reset_parameters() to draw them anew; start = "network" keeps what they are'
                )


def _train(
    module: nn.Module, context: Context, config: _Config, masks: Masks, index: int
) -> dict[str, Any]:
    """Train to the end, the first time from the start; the state after `rewind_epoch` epochs of
    that first time."""
    first = config.rewind_epoch if index else 0
    samples = len(context.task.training_samples(0))
    # The last, smaller batch of an epoch is left out.
    steps = config.rewind_epoch * (samples // min(config.batch_size, samples))
    early = copy.deepcopy(module.state_dict())
    zero, taken = hold(weights_of(module), masks), 0

    def after_step() -> None:
        nonlocal early, taken
        zero()
        taken += 1
        if taken == steps and not index:
            early = copy.deepcopy(module.state_dict())

    def told(fraction: float, text: str) -> None:
        part = f"round {index} of {config.rounds}" if index else "the whole network"
        context.progress((index + fraction) / (config.rounds + 1), f"{part}: {text}")

    training.train(
        module,
        context.task,
        Training(**config.model_dump(include=set(Training.model_fields))),
        seed=context.seed,
        progress=told,
        after_step=after_step,
        first_epoch=first,
    )
    return early
