"""lora: fine-tuning by adapters of a low rank, merged into the weights.

    W = W_base + alpha / rank * B A,    A (rank x in) random, B (out x rank) zero at first

Only A and B train (Hu et al. 2021, "LoRA", arXiv 2106.09685): with so few parameters a network that
lost something to compression is mended without forgetting what it knows. Everything else stays as
it is, batch norm's statistics included. Afterwards B A is added to the weights, so that what is
exported has the same layers and costs what it did. Convolutions are adapted as matrices
(out x in k l), and attention's projections too.

With a quantised `base`, W_base is what the weights become in that many bits (QLoRA: Dettmers et al.
2023, arXiv 2305.14314): "int8" has one scale for each output, "int4" one for each 64 columns, and
the adapters learn what rounding lost as well. They are merged into the rounded weights that they
were trained on, not into the original floats: there the correction of an error that is not made
would be one itself. The sum is stored in floats; a step that quantises it rounds again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compressors import training
from compressors.errors import NotApplicable
from compressors.surgery.observe import weights_of
from compressors.technique import Context, Network, Technique
from compressors.training import Training

Base = Literal["float", "int8", "int4"]

_GROUP = 64  # columns that share a scale in int4; QLoRA's block


class _Config(Training):
    rank: int = Field(8, ge=1, le=1024, description="of the adapters")
    alpha: float = Field(16.0, gt=0, le=4096, description="adapters are multiplied by alpha / rank")
    base: Base = Field("float", description="what the frozen weights are rounded to first")


class _Lora(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Fine-tunes by adapters of a low rank and merges them into the weights."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with the trained adapters merged into its weights.

        Raises:
            NotApplicable: every weight is smaller than its adapter would be.
            NotFinite: the loss became NaN.
        """
        module = network.module
        trained = {parameter: parameter.requires_grad for parameter in module.parameters()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)  # of the adapters' first values
            adapted = adapt(module, config.rank, config.alpha, config.base)
        if not adapted:
            raise NotApplicable(
                f"lora: no linear layer, convolution or attention has a weight larger than an "
                f"adapter of rank {config.rank}"
            )
        how = Training(**config.model_dump(include=set(Training.model_fields)))
        frozen = module.register_forward_pre_hook(_freeze_statistics)
        try:
            training.train(module, context.task, how, seed=context.seed, progress=context.progress)
        finally:
            frozen.remove()
        merge(adapted)
        for parameter, trains in trained.items():
            parameter.requires_grad_(trains)
        return replace(network, module=module)


TECHNIQUE = _Lora()

Adapted = list[tuple[nn.Module, str]]
"""Layers and the names of their weights that have adapters."""


class Adapter(nn.Module):
    """`forward(weight)`: the weight with the adapter's product added; at first as it is."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, columns, dtype=weight.dtype))
        self.up = nn.Parameter(torch.zeros(rows, rank, dtype=weight.dtype))
        # As of a linear layer from `columns` to `rank` features.
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.scale * self.up @ self.down).view_as(weight)


def adapt(module: nn.Module, rank: int, alpha: float, base: Base) -> Adapted:
    """Freeze `module`, round its larger weights to `base` and give them adapters, in place.

    Weights that two layers share keep their values and get none: merged into one, the other would
    change with it. Recurrent layers' weights are inside one call, out of reach, and stay too.
    """
    module.requires_grad_(False)
    places = Counter(id(p) for m in module.modules() for p in m._parameters.values())
    adapted: Adapted = []
    for full, weight in weights_of(module).items():
        layer_name, _, name = full.rpartition(".")
        layer = module.get_submodule(layer_name)
        rows, columns = weight.flatten(1).shape
        recurrent = isinstance(layer, nn.RNNBase | nn.RNNCellBase)
        if recurrent or places[id(weight)] > 1 or rank * (rows + columns) >= weight.numel():
            continue
        weight.data = rounded(weight.data, base)
        parametrize.register_parametrization(layer, name, Adapter(weight, rank, alpha))
        adapted.append((layer, name))
    return adapted


def merge(adapted: Adapted) -> None:
    """The adapters' products become part of the weights, and the adapters go."""
    for layer, name in adapted:
        parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def rounded(weight: Tensor, base: Base) -> Tensor:
    """`weight` as its symmetric integers say, in floats: int8 by row, int4 by 64 of its columns."""
    if base == "float":
        return weight
    matrix = weight.flatten(1)
    most = 127 if base == "int8" else 7
    size = matrix.shape[1] if base == "int8" else min(_GROUP, matrix.shape[1])
    groups = [_to_integers(part, most) for part in torch.split(matrix, size, dim=1)]
    return torch.cat(groups, dim=1).view_as(weight)


def _to_integers(part: Tensor, most: int) -> Tensor:
    scale = part.abs().amax(dim=1, keepdim=True) / most
    scale = scale.clamp_min(torch.finfo(part.dtype).tiny)
    return (part / scale).round() * scale


def _freeze_statistics(module: nn.Module, _inputs: object) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            layer.eval()
