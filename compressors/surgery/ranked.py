"""What decompositions of convolutions share that choose their ranks by a share or by energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from compressors.errors import NotApplicable
from compressors.surgery.splitting import convolutions, fine_tune, multiplications, put
from compressors.surgery.tensors import ranks_of
from compressors.technique import Context, Network
from compressors.training import Training


class Ranked(Training):
    """Their settings; `ratio` says in each technique's own words what it is a share of."""

    epochs: int = Field(2, ge=0, le=1000, description="of fine-tuning; 0: none")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    rank_by: Literal["ratio", "energy"] = Field(
        "ratio", description="what decides the ranks: one of the two settings below"
    )
    ratio: float = Field(0.5, gt=0, lt=1, description="ranks, as a share of the full ones")
    energy: float = Field(
        0.8, gt=0, lt=1, description="share of the squared weights that a layer keeps at least"
    )
    round_to: int = Field(
        8, ge=1, le=64, description="ranks are multiples of this; odd ones run slower"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        unused = "energy" if self.rank_by == "ratio" else "ratio"
        self.refuse(unused, because=f"rank_by is {self.rank_by!r}")
        return self


def split(
    technique: str,
    network: Network,
    context: Context,
    config: Ranked,
    unfoldings: Callable[[Tensor], list[Tensor]],
    chain_of: Callable[[nn.Conv2d, list[int]], nn.Sequential],
) -> Network:
    """The network with every convolution split that has fewer multiplications so, fine-tuned.

    Args:
        technique: its name, for the message.
        unfoldings: the matrices of a weight (out, in, k, l) that each have a rank.
        chain_of: the layers that take a convolution's place, at those ranks.

    Raises:
        NotApplicable: no convolution would have fewer.
        NotFinite: the loss became NaN.
    """
    ratio = config.ratio if config.rank_by == "ratio" else None
    done = False
    for name, layer in convolutions(network.module).items():
        ranks = ranks_of(
            unfoldings(layer.weight), ratio=ratio, energy=config.energy, round_to=config.round_to
        )
        chain = chain_of(layer, ranks)
        if multiplications(*chain) < multiplications(layer):
            put(network.module, name, chain)
            done = True
    if not done:
        raise NotApplicable(
            f"{technique}: no convolution larger than 1 x 1 has fewer multiplications at "
            f"{config.rank_by} {getattr(config, config.rank_by)} with ranks in multiples of "
            f"{config.round_to}"
        )
    fine_tune(network.module, context, config)
    return replace(network, module=network.module)
