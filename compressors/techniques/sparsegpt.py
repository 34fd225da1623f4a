"""sparsegpt: weights are removed layer by layer, and those that stay make up for it (Frantar &
Alistarh 2023, "SparseGPT", arXiv 2301.00774).

A layer's columns are gone through once. What goes is what costs least, w_j^2 / u_jj^2, and the
columns to the right change by -(w_j / u_jj) u_j, u the upper Cholesky factor of the inverse of
X^T X, X the layer's inputs on training samples; a convolution is the linear layer on what its
kernel sees. Each layer is given the inputs that come out of the layers pruned before it. Nothing
needs to be trained, which is what it is for; fine-tuning can follow, and keeps the zeros.

As with all single weights, no engine here runs faster for them; see `prune-weights`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors import training
from compressors.errors import NotApplicable
from compressors.surgery.masks import Amount, hold, kept, sparsity_of
from compressors.surgery.obs import prune_rows
from compressors.surgery.observe import draw, hidden, observe, weights_of
from compressors.task import Samples
from compressors.technique import Context, Network, Technique
from compressors.training import Training

_PRUNING = 0.5  # of the progress, where training follows


class _Config(Training, Amount):
    epochs: int = Field(0, ge=0, le=1000, description="of fine-tuning; 0: none")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    samples: int = Field(128, ge=1, le=100_000, description="training samples to see inputs on")
    damping: float = Field(
        0.01, gt=0, le=1, description="added to the Hessian's diagonal, as a share of its mean"
    )
    block: int = Field(128, ge=1, le=65_536, description="columns whose weights compete")


class _SparseGPT(Technique):
    Config = _Config
    needs = frozenset({"training", "calibration"})
    summary = (
        "Sets weights to zero and corrects the others for it, without training. "
        "Smaller once compressed; no faster."
    )

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with that share of zeros in every layer.

        Raises:
            NotApplicable: there is no linear layer and no convolution, a layer's inputs cannot be
                seen, or no layer has inputs in multiples of the pattern's.
            NotFinite: the loss became NaN.
        """
        module = network.module
        pattern = None if config.pattern is None else kept(config.pattern)
        weights = {
            name: weight
            for name, weight in weights_of(module).items()
            if pattern is None or weight.shape[1] % pattern[1] == 0
        }
        if not weights:
            divides = "" if pattern is None else f" with inputs that {config.pattern} divides"
            raise NotApplicable(f"sparsegpt: no linear layer and no convolution{divides}")
        samples = draw(context.task, config.samples, context.seed)
        _refuse_hidden(module, context, samples, weights)
        share = _PRUNING if config.epochs else 1.0
        for index, (name, weight) in enumerate(weights.items()):
            context.progress(share * index / len(weights), name)
            # One layer a pass: it sees what the ones before it have become, and one Gram matrix
            # is in memory at a time.
            gram = observe(module, context.task, samples, {"gram"}, only=[name])[name].gram
            if gram is not None:
                with torch.no_grad():
                    weight.copy_(pruned(weight, gram, config))
        if not any(sparsity_of(weights).zeros.values()):
            raise NotApplicable("sparsegpt: no sample reaches a layer, or none has enough weights")
        if config.epochs:

            def told(fraction: float, text: str) -> None:
                context.progress(_PRUNING + (1 - _PRUNING) * fraction, text)

            training.thaw(module, "sparsegpt")
            training.train(
                module,
                context.task,
                Training(**config.model_dump(include=set(Training.model_fields))),
                seed=context.seed,
                progress=told,
                after_step=hold(weights, {n: w.detach() != 0 for n, w in weights.items()}),
            )
        return replace(network, module=module)


TECHNIQUE = _SparseGPT()


def pruned(weight: Tensor, gram: Tensor, config: _Config) -> Tensor:
    """`weight`, of any shape, pruned group by group; `gram` (groups, columns, columns) as
    `compressors.surgery.observe` gives it."""
    pattern = None if config.pattern is None else kept(config.pattern)
    # A pattern lies along the channels: those at one place of the kernel must be neighbours.
    moved = weight.detach().movedim(1, -1)
    order = torch.arange(gram.shape[1]).reshape(weight.shape[1:]).movedim(0, -1).flatten()
    groups = moved.reshape(len(gram), -1, gram.shape[1])
    done = [
        prune_rows(
            rows,
            seen[order][:, order],
            sparsity=config.sparsity,
            pattern=pattern,
            damping=config.damping,
            block=config.block,
        )
        for rows, seen in zip(groups, gram, strict=True)
    ]
    return torch.cat(done).reshape(moved.shape).movedim(-1, 1)


def _refuse_hidden(
    module: nn.Module, context: Context, samples: Samples, weights: dict[str, nn.Parameter]
) -> None:
    seen = observe(module, context.task, samples.batch(slice(0, 1)), {"moments"}, only=weights)
    if unseen := hidden(seen):
        raise NotApplicable(
            f"sparsegpt: it needs the inputs of every layer, and those of {', '.join(unseen)} "
            "cannot be seen; prune-weights by magnitude, taylor or obd needs none"
        )
