"""fine-tune: the network as it now is goes on training on the labels, by `task.loss`: the plain
recovery after a step that changed it, and what `self-distil` is to be compared with (Renda, Frankle
& Carbin 2020, arXiv 2003.02389, compare ways to retrain after pruning).

Weights that are zero stay zero: pruned ones do not come back.
"""

from __future__ import annotations

from pydantic import Field

from compressors import training
from compressors.technique import Context, Network, Technique
from compressors.training import Training


class _Config(Training):
    epochs: int = Field(3, ge=1, le=1000, description="passes over the training split")


class _FineTune(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Goes on training the network on the labels."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network that came in, trained in place.

        Raises:
            NotApplicable: it has no weights to train.
            NotFinite: the loss became NaN.
        """
        training.thaw(network.module, "fine-tune")
        training.train(
            network.module,
            context.task,
            config,
            seed=context.seed,
            progress=context.progress,
            after_step=training.hold_zeros(network.module),
        )
        return network


TECHNIQUE = _FineTune()
