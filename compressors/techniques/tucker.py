"""tucker: a convolution becomes 1 x 1 to fewer channels, k x l among those, 1 x 1 to all of them.

    W (out, in, k, l)  ~  core (r_out, r_in, k, l) x_out A (out, r_out) x_in B (in, r_in)

Tucker-2 (Kim et al. 2016, "Compression of Deep Convolutional Neural Networks for Fast and Low Power
Mobile Applications", arXiv 1511.06530). Ranks are a share of the channels, or the least that keep a
share of the squared weights: with half of what may be lost for each side, the error stays within
the bound of the truncated higher-order SVD. A side that keeps all its channels has no 1 x 1.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from compressors.surgery.ranked import Ranked, split
from compressors.surgery.splitting import conv_part
from compressors.surgery.tensors import modes, tucker2
from compressors.technique import Context, Network, Technique


class _Config(Ranked):
    ratio: float = Field(
        0.5, gt=0, lt=1, description="channels of the k x l part, as a share of the layer's"
    )


class _Tucker(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Splits convolutions in three, the middle one among fewer channels, then fine-tunes."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with every convolution split that has fewer multiplications so, fine-tuned.

        Raises:
            NotApplicable: no convolution would have fewer.
            NotFinite: the loss became NaN.
        """
        return split(
            "tucker",
            network,
            context,
            config,
            modes,
            lambda layer, r: split_tucker(layer, (r[0], r[1])),
        )


TECHNIQUE = _Tucker()


def split_tucker(layer: nn.Conv2d, ranks: tuple[int, int]) -> nn.Sequential:
    """Up to three convolutions in place of one, through `ranks` (out, in) channels; the same at
    full ranks, as one."""
    core, out, into = tucker2(layer.weight, ranks)
    parts: list[nn.Conv2d] = []
    if ranks[1] < layer.in_channels:
        parts.append(conv_part(layer, into.T[:, :, None, None]))
    else:
        core = torch.einsum("oikl,ji->ojkl", core, into)
    if ranks[0] < layer.out_channels:
        parts.append(conv_part(layer, core, rows=True, columns=True))
        parts.append(conv_part(layer, out[:, :, None, None], last=True))
    else:
        core = torch.einsum("oikl,po->pikl", core, out)
        parts.append(conv_part(layer, core, rows=True, columns=True, last=True))
    return nn.Sequential(*parts)
