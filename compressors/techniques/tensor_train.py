"""tensor-train: a convolution becomes 1 x 1, k x 1, 1 x l and 1 x 1, each among fewer channels.

    W[o, i, y, x]  ~  sum_{a, b, c} G1[i, a] G2[a, y, b] G3[b, x, c] G4[c, o]

A tensor train of the weights (Oseledets 2011, SIAM J. Sci. Comput. 33:2295; of convolutions:
Garipov et al. 2016, arXiv 1611.03214), in the order in which the four convolutions follow. Unlike
cp's, all four are dense. Ranks are a share of the full ones, or the least that keep a share of the
squared weights: with a third of what may be lost for each, the error stays within it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from compressors.errors import NotApplicable
from compressors.splitting import conv_part, convolutions, fine_tune, multiplications, put
from compressors.technique import Context, Network, Technique
from compressors.tensors import cuts, ranks_of, train_of
from compressors.training import Training


class _Config(Training):
    epochs: int = Field(2, ge=0, le=1000, description="of fine-tuning; 0: none")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    rank_by: Literal["ratio", "energy"] = Field(
        "ratio", description="what decides the ranks: one of the two settings below"
    )
    ratio: float = Field(0.3, gt=0, lt=1, description="ranks, as a share of the full ones")
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


class _TensorTrain(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Splits convolutions in four dense ones among fewer channels, then fine-tunes."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with every convolution split that has fewer multiplications so, fine-tuned.

        Raises:
            NotApplicable: no convolution would have fewer.
            NotFinite: the loss became NaN.
        """
        ratio = config.ratio if config.rank_by == "ratio" else None
        done = False
        for name, layer in convolutions(network.module).items():
            first, second, third = ranks_of(
                cuts(layer.weight), ratio=ratio, energy=config.energy, round_to=config.round_to
            )
            chain = split_train(layer, (first, second, third))
            if multiplications(*chain) < multiplications(layer):
                put(network.module, name, chain)
                done = True
        if not done:
            raise NotApplicable(
                f"tensor-train: no convolution larger than 1 x 1 has fewer multiplications at "
                f"{config.rank_by} {getattr(config, config.rank_by)} with ranks in multiples of "
                f"{config.round_to}"
            )
        fine_tune(network.module, context, config)
        return replace(network, module=network.module)


TECHNIQUE = _TensorTrain()


def split_train(layer: nn.Conv2d, ranks: tuple[int, int, int]) -> nn.Sequential:
    """Four convolutions in place of one, through at most `ranks` channels between them; the same
    at full ranks."""
    first, second, third, fourth = train_of(layer.weight, ranks)
    return nn.Sequential(
        conv_part(layer, first[0].T[:, :, None, None]),
        conv_part(layer, second.permute(2, 0, 1)[..., None], rows=True),
        conv_part(layer, third.permute(2, 0, 1)[:, :, None], columns=True),
        conv_part(layer, fourth[..., 0].T[:, :, None, None], last=True),
    )
