"""cp: a convolution becomes 1 x 1, then k x 1 and 1 x l of each channel alone, then 1 x 1.

    W[o, i, y, x]  ~  sum_r A[o, r] B[i, r] C[y, r] D[x, r]

Canonical polyadic decomposition (Lebedev et al. 2015, "Speeding-up Convolutional Neural Networks
Using Fine-tuned CP-Decomposition", arXiv 1412.6553), by alternating least squares. At the same
number of multiplications it is nearer to the weights than any other split here. What it costs is
in the middle: convolutions of each channel alone are many small ones. At a third of the
multiplications a training step of the bundled digits' network took 0.25 s in place of 0.30 s.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import nn

from compressors.errors import NotApplicable
from compressors.surgery.splitting import conv_part, convolutions, fine_tune, put
from compressors.surgery.tensors import canonical
from compressors.technique import Context, Network, Technique
from compressors.training import Training


class _Config(Training):
    epochs: int = Field(2, ge=0, le=1000, description="of fine-tuning; 0: none")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    cost: float = Field(
        0.33, gt=0, lt=1, description="multiplications of a layer, as a share of what it had"
    )
    iterations: int = Field(
        50, ge=1, le=10_000, description="of alternating least squares, at most, for each layer"
    )
    round_to: int = Field(
        8, ge=1, le=64, description="ranks are multiples of this; odd ones run slower"
    )


class _Cp(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Splits convolutions in four, the middle two channel by channel, then fine-tunes."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with every convolution split for which `cost` allows a rank, fine-tuned.

        Raises:
            NotApplicable: it allows one for none.
            NotFinite: the loss became NaN.
        """
        layers = convolutions(network.module)
        ranks = {name: _rank(layer, config) for name, layer in layers.items()}
        chosen = {name: rank for name, rank in ranks.items() if rank}
        if not chosen:
            raise NotApplicable(
                f"cp: no convolution larger than 1 x 1 has a rank at cost {config.cost} in "
                f"multiples of {config.round_to}"
            )
        for index, (name, rank) in enumerate(chosen.items()):
            context.progress(0.0, f"decomposing {name}, {index + 1} of {len(chosen)}")
            chain = split_cp(layers[name], rank, config.iterations, context.seed)
            put(network.module, name, chain)
        fine_tune(network.module, context, config)
        return replace(network, module=network.module)


TECHNIQUE = _Cp()


def split_cp(layer: nn.Conv2d, rank: int, iterations: int, seed: int) -> nn.Sequential:
    """Four convolutions through `rank` channels in place of one."""
    out, into, rows, columns = canonical(layer.weight, rank, iterations, seed)
    return nn.Sequential(
        conv_part(layer, into.T[:, :, None, None]),
        conv_part(layer, rows.T[:, None, :, None], rows=True, groups=rank),
        conv_part(layer, columns.T[:, None, None, :], columns=True, groups=rank),
        conv_part(layer, out[:, :, None, None], last=True),
    )


def _rank(layer: nn.Conv2d, config: _Config) -> int:
    """The largest that keeps to the cost; 0 when none does."""
    down, across = layer.stride
    k, width = layer.kernel_size
    # The 1 x 1 and the k x 1 stand before strides and compute more places.
    each = layer.in_channels * down * across + k * across + width + layer.out_channels
    return int(config.cost * layer.weight.numel() / each) // config.round_to * config.round_to
