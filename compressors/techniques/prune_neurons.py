"""prune-neurons: hidden neurons between linear layers are removed, and the network is fine-tuned.

For MLPs and for the feed-forward part of transformers, which holds two thirds of their weights
(pruned by Hugging Face's nn_pruning and by CoFi, Xia et al. 2022, arXiv 2204.00408):

    y = W2 f(W1 x + b1) + b2:    rows of W1 and b1 go, and the same columns of W2

Which linear layers share their neurons is read off the exported graph
(`compressors.surgery.graph`), so that gated units and residual sums between linear layers lose the
same of each. What is removed is what nothing else reads; what a layer norm, an attention or the
caller reads stays as wide as it is.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.errors import NotApplicable
from compressors.export import first_line
from compressors.surgery import narrow, structure
from compressors.surgery.graph import Features, linear_features
from compressors.surgery.structure import Pruning
from compressors.surgery.units import Slot, Units
from compressors.technique import Context, Network, Technique


class _Config(Pruning):
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")


class _PruneNeurons(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Removes the hidden neurons between linear layers that matter least, fine-tunes."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with fewer hidden neurons, fine-tuned.

        Raises:
            NotApplicable: it has none between linear layers, or cannot be traced.
            NotFinite: the loss became NaN.
        """
        structure.prune("prune-neurons", "neurons", network.module, context, config, neurons)
        return replace(network, module=network.module)


TECHNIQUE = _PruneNeurons()


def neurons(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Units]:
    """The hidden neurons of `module`, by the layer that makes them.

    Raises:
        NotApplicable: it cannot be traced.
    """
    try:
        found = linear_features(module, inputs)
    except Exception as error:
        raise NotApplicable(
            f"prune-neurons: torch.export cannot trace the network: {first_line(error)}"
        ) from error
    names = {layer: name for name, layer in module.named_modules()}
    return [_units(features, names) for features in found]


def _units(features: Features, names: dict[nn.Module, str]) -> Units:
    count = features.writers[0].out_features
    each = torch.arange(count)
    made_by = [*features.writers, *(norm for norm in features.norms if norm.affine)]
    slots = [Slot(f"{names[layer]}.weight", 0, each, reads=False) for layer in made_by]
    slots += [Slot(f"{names[layer]}.weight", 1, each, reads=True) for layer in features.readers]

    def remove(gone: list[int]) -> None:
        for layer in features.writers:
            narrow.linear(layer, gone, outputs=True)
        for layer in features.readers:
            narrow.linear(layer, gone, outputs=False)
        for norm in features.norms:
            narrow.batch_norm(norm, gone)

    return Units(features.name, count, tuple(slots), remove)
