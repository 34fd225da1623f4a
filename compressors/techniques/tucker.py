"""tucker: a convolution becomes 1 x 1 to fewer channels, k x l among those, 1 x 1 to all of them.

    W (out, in, k, l)  ~  core (r_out, r_in, k, l) x_out A (out, r_out) x_in B (in, r_in)

Tucker-2 (Kim et al. 2016, "Compression of Deep Convolutional Neural Networks for Fast and Low Power
Mobile Applications", arXiv 1511.06530). Ranks are a share of the channels, or the least that keep a
share of the squared weights: with half of what may be lost for each side, the error stays within
the bound of the truncated higher-order SVD. A side that keeps all its channels has no 1 x 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from compressors.errors import NotApplicable
from compressors.splitting import conv_part, convolutions, fine_tune, multiplications, put
from compressors.technique import Context, Network, Technique
from compressors.tensors import modes, ranks_of, tucker2
from compressors.training import Training


class _Config(Training):
    epochs: int = Field(2, ge=0, le=1000, description="of fine-tuning; 0: none")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    rank_by: Literal["ratio", "energy"] = Field(
        "ratio", description="what decides the ranks: one of the two settings below"
    )
    ratio: float = Field(
        0.5, gt=0, lt=1, description="channels of the k x l part, as a share of the layer's"
    )
    energy: float = Field(
        0.8, gt=0, lt=1, description="share of the squared weights that a layer keeps at least"
    )
    round_to: int = Field(
        8, ge=1, le=64, description="ranks are multiples of this; odd ones run slower"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        rules = {"ratio": "ratio", "energy": "energy"}
        others = [setting for rule, setting in rules.items() if rule != self.rank_by]
        self.refuse(*others, because=f"rank_by is {self.rank_by!r}")
        return self


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
        ratio = config.ratio if config.rank_by == "ratio" else None
        done = False
        for name, layer in convolutions(network.module).items():
            r_out, r_in = ranks_of(
                modes(layer.weight), ratio=ratio, energy=config.energy, round_to=config.round_to
            )
            chain = split_tucker(layer, (r_out, r_in))
            if multiplications(*chain) < multiplications(layer):
                put(network.module, name, chain)
                done = True
        if not done:
            raise NotApplicable(
                f"tucker: no convolution larger than 1 x 1 has fewer multiplications at "
                f"{config.rank_by} {getattr(config, config.rank_by)} with ranks in multiples of "
                f"{config.round_to}"
            )
        fine_tune(network.module, context, config)
        return replace(network, module=network.module)


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
