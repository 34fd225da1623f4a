"""prune-weights: single weights become zero, wherever they lie, and the others are fine-tuned.

The weights of linear, convolutional, attention and recurrent layers are ranked by a criterion and
the least important go; the formulas and their papers are in `compressors/surgery/criteria.py`, the
ways to choose by them (by output, by layer, over all, or n of every m) in
`compressors/surgery/masks.py`. In several rounds the share grows as 1 - (1 - t)^3 (Zhu & Gupta
2017, arXiv 1710.01878), each followed by fine-tuning in which what is zero stays zero.

No engine here skips a zero: a pruned network takes as long as it did, and its file as many bytes.
What it is good for is a smaller file once that is compressed, to send or to keep, and research.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator
from torch import nn

from compressors import training
from compressors.errors import NotApplicable
from compressors.surgery.criteria import NEEDS, Criterion, importances
from compressors.surgery.masks import (
    Amount,
    Masks,
    Scope,
    apply,
    cubic,
    gone_first,
    hold,
    patterned,
    sparsest,
    sparsity_of,
)
from compressors.surgery.observe import draw, hidden, observe, weights_of
from compressors.technique import Context, Network, Technique
from compressors.training import Training

_LOOKING = 0.1  # of the progress of a round: the criterion's share of the time


class _Config(Training, Amount):
    epochs: int = Field(
        2, ge=0, le=1000, description="passes over the training split after each round; 0: none"
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    criterion: Criterion = Field("magnitude", description="what makes a weight important")
    scope: Scope | None = Field(
        None,
        description="where the share holds: in each output (None with wanda, as in its paper), in "
        "each layer, or over all (None otherwise)",
    )
    rounds: int = Field(1, ge=1, le=100, description="steps in which the share is reached")
    samples: int = Field(
        256, ge=1, le=100_000, description="training samples to judge by, where the criterion does"
    )

    @model_validator(mode="after")
    def _a_pattern_is_cut_at_once(self) -> _Config:
        if self.pattern is not None and self.rounds > 1:
            raise ValueError(f"rounds: expected 1 with a pattern, got {self.rounds}")
        return self


class _PruneWeights(Technique):
    Config = _Config
    needs = frozenset({"training", "calibration"})
    summary = (
        "Sets the least important weights to zero, then fine-tunes. "
        "Smaller once compressed; no faster."
    )

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with that share of zeros.

        Raises:
            NotApplicable: there is no weight to remove, the criterion cannot see what a layer does,
                or no layer has inputs in multiples of the pattern's.
            NotFinite: the loss became NaN.
        """
        module = network.module
        weights = weights_of(module)
        before = sparsity_of(weights)
        # What an earlier step has removed is gone already. A layer of zeros alone starts from them.
        masks = {n: w.detach() != 0 for n, w in weights.items() if 0 < before.zeros[n] < w.numel()}
        for index in range(config.rounds):

            def told(fraction: float, text: str, index: int = index) -> None:
                context.progress((index + fraction) / config.rounds, text)

            share = cubic(config.sparsity, index + 1, config.rounds)
            masks = _round(module, replace(context, progress=told), config, share, masks)
        after = sparsity_of(weights)
        if after.share <= before.share:
            raise NotApplicable(
                f"prune-weights: {before} already, and {config.sparsity:.1%} are asked for"
            )
        return replace(network, module=module)


TECHNIQUE = _PruneWeights()


def _round(
    module: nn.Module, context: Context, config: _Config, share: float, before: Masks
) -> Masks:
    """Prune to `share` and fine-tune, in place; the masks."""
    masks = _masks(module, context, config, share, before)
    weights = weights_of(module)
    apply(weights, masks)
    context.progress(_LOOKING, str(sparsity_of(weights)))
    if config.epochs:

        def told(fraction: float, text: str) -> None:
            context.progress(_LOOKING + (1 - _LOOKING) * fraction, text)

        training.thaw(module, "prune-weights")
        training.train(
            module,
            context.task,
            Training(**config.model_dump(include=set(Training.model_fields))),
            seed=context.seed,
            progress=told,
            after_step=hold(weights, masks),
        )
    return masks


def _masks(
    module: nn.Module, context: Context, config: _Config, share: float, before: Masks
) -> Masks:
    """Masks without the least important weights, those of `before` first."""
    weights = weights_of(module)
    needs = NEEDS[config.criterion]
    seen = {}
    if needs:
        samples = draw(context.task, config.samples, context.seed)

        def told(fraction: float, text: str) -> None:
            context.progress(_LOOKING * fraction, text)

        seen = observe(module, context.task, samples, needs, progress=told)
    if config.criterion == "wanda" and (unseen := hidden(seen)):
        raise NotApplicable(
            f"prune-weights: wanda needs the inputs of every layer, and those of "
            f"{', '.join(unseen)} cannot be seen; magnitude, taylor and obd need none"
        )
    ranked = importances(config.criterion, weights, seen, context.seed)
    if not ranked:
        raise NotApplicable("prune-weights: the network has no weight of a layer that it prunes")
    ranked = gone_first(ranked, before)
    if config.pattern is None:
        own: Scope = "output" if config.criterion == "wanda" else "global"
        return sparsest(ranked, share, config.scope or own)
    masks = patterned(ranked, config.pattern)
    if not masks:
        raise NotApplicable(
            f"prune-weights: no layer has a number of inputs that {config.pattern} divides"
        )
    return masks
