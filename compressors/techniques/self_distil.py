"""self-distil: the network as it now is learns from the reference that it came from: the recovery
after pruning or factorising that needs no student and wins back more than labels alone do
(Muralidharan et al. 2024, "Compact language models via pruning and knowledge distillation", arXiv
2407.14679; with an unchanged network it is akin to a generation of born-again
networks, Furlanello et al. 2018, arXiv 1805.04770).

The loss is that of `distil`. Weights that are zero stay zero: pruned ones do not come back.
"""

from __future__ import annotations

from pydantic import Field

from compressors import distilling, training
from compressors.distilling import Teaching
from compressors.technique import Context, Network, Technique


class _Config(Teaching):
    epochs: int = Field(3, ge=1, le=1000, description="passes over the training split")


class _SelfDistil(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Recovers a pruned or factorised network by the reference's outputs and the labels."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network that came in, trained in place.

        Raises:
            NotApplicable: it has no weights to train, or its outputs are not of the kind asked
                for.
            NotFinite: the loss became NaN.
        """
        training.thaw(network.module, "self-distil")
        zeros = training.hold_zeros(network.module)
        distilling.learn("self-distil", network.module, context, config, after_step=zeros)
        return network


TECHNIQUE = _SelfDistil()
