"""tensor-train: a convolution becomes 1 x 1, k x 1, 1 x l and 1 x 1, each among fewer channels.

    W[o, i, y, x]  ~  sum_{a, b, c} G1[i, a] G2[a, y, b] G3[b, x, c] G4[c, o]

A tensor train of the weights (Oseledets 2011, SIAM J. Sci. Comput. 33:2295; of convolutions:
Garipov et al. 2016, arXiv 1611.03214), in the order in which the four convolutions follow. Unlike
cp's, all four are dense. Ranks are a share of the full ones, or the least that keep a share of the
squared weights: with a third of what may be lost for each, the error stays within it.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from compressors.surgery.ranked import Ranked, split
from compressors.surgery.splitting import conv_part
from compressors.surgery.tensors import cuts, train_of
from compressors.technique import Context, Network, Technique


class _Config(Ranked):
    ratio: float = Field(0.3, gt=0, lt=1, description="ranks, as a share of the full ones")


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
        return split(
            "tensor-train",
            network,
            context,
            config,
            cuts,
            lambda layer, ranks: split_train(layer, (ranks[0], ranks[1], ranks[2])),
        )


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
