"""low-rank: layers become two thinner ones by truncated singular value decomposition.

A k x l convolution becomes a k x 1 and a 1 x l convolution through `rank` channels between them
(Jaderberg, Vedaldi & Zisserman 2014, arXiv 1405.3866), a linear layer two linear layers (Denton et
al. 2014, arXiv 1404.0736). Truncating the SVD of the weights, reshaped to a matrix, gives the two
that are nearest to them in the sum of squares (Eckart & Young 1936): the error is the sum of the
squared singular values that were dropped. Fine-tuning then wins back what that costs.

Of the two usual ways to split a convolution this one was the faster: at the same number of
multiplications OpenVINO took 0.79 ms for it and 0.88 ms for k x l to `rank` channels, then 1 x 1.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import nn

from compressors.errors import NotApplicable
from compressors.surgery.factors import truncated
from compressors.surgery.splitting import conv_part, fine_tune, linear_pair
from compressors.technique import Context, Network, Technique
from compressors.training import Training


class _Config(Training):
    epochs: int = Field(2, ge=0, le=1000, description="of fine-tuning; 0: none")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    cost: float = Field(
        0.33, gt=0, lt=1, description="multiplications of a layer, as a share of what it had"
    )
    round_to: int = Field(
        8, ge=1, le=64, description="ranks are multiples of this; odd ones run slower"
    )


class _LowRank(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Splits convolutions and linear layers into two thinner ones, then fine-tunes."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with every layer split that has fewer multiplications so, fine-tuned.

        Raises:
            NotApplicable: no layer would have fewer.
            NotFinite: the loss became NaN.
        """
        if not split_layers(network.module, config.cost, config.round_to):
            raise NotApplicable(
                f"low-rank: no convolution or linear layer has fewer multiplications at cost "
                f"{config.cost} with ranks in multiples of {config.round_to}"
            )
        fine_tune(network.module, context, config)
        return replace(network, module=network.module)


TECHNIQUE = _LowRank()


def split_layers(module: nn.Module, cost: float, round_to: int) -> list[str]:
    """Split, in place, the layers of `module` that gain by it; their names."""
    done = []
    for name, layer in list(module.named_modules()):
        parent_name, _, attribute = name.rpartition(".")
        parent = module.get_submodule(parent_name)
        # This one reads its layers' weights by itself in eval mode, and a split has two.
        if not name or isinstance(parent, nn.TransformerEncoderLayer):
            continue
        if type(layer) is nn.Conv2d:
            # The split pads with zeros; "same" and "valid" hide how much is padded.
            if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                continue
            rank = _rank(_conv_share(layer), cost, round_to)
            changed = split_conv(layer, rank) if rank else None
        elif type(layer) is nn.Linear:
            rank = _rank(1 / layer.in_features + 1 / layer.out_features, cost, round_to)
            changed = split_linear(layer, rank) if rank else None
        else:
            continue
        if changed is not None:
            setattr(parent, attribute, changed)
            done.append(name)
    return done


def split_conv(layer: nn.Conv2d, rank: int) -> nn.Sequential:
    """A k x 1 and a 1 x l convolution in place of one of k x l. Zero padding, no groups.

    At full rank, min(c_in k, c_out l), they compute what `layer` does.
    """
    c_out, c_in, k, width = layer.weight.shape
    matrix = layer.weight.detach().permute(1, 2, 0, 3).reshape(c_in * k, c_out * width)
    left, right = truncated(matrix, rank)
    down = left.T.reshape(rank, c_in, k, 1)
    across = right.reshape(rank, c_out, 1, width).transpose(0, 1)
    return nn.Sequential(
        conv_part(layer, down, rows=True), conv_part(layer, across, columns=True, last=True)
    )


def split_linear(layer: nn.Linear, rank: int) -> nn.Sequential:
    """Two linear layers through `rank` features in place of one; the same at full rank."""
    return linear_pair(layer, *truncated(layer.weight, rank))


def _conv_share(layer: nn.Conv2d) -> float:
    """The split's multiplications for each channel between, as a share of the layer's. The first
    of the two strides downwards alone, so it has `stride` times the columns."""
    k, width = layer.kernel_size
    down = k * layer.in_channels * layer.stride[1]
    across = width * layer.out_channels
    return (down + across) / (k * width * layer.in_channels * layer.out_channels)


def _rank(share: float, cost: float, round_to: int) -> int:
    """The largest rank that keeps to `cost`; 0 when none does. As cost < 1, it is below full."""
    return int(cost / share) // round_to * round_to
