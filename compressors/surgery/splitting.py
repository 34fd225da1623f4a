"""Layers become chains of smaller ones: which can, what it costs, and how they take their place."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from compressors import training
from compressors.technique import Context
from compressors.training import Training


def convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions that a chain could replace, by name: no groups, padded with zeros (as the
    chain pads) by numbers ("same" and "valid" hide how much), and larger than 1 x 1."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) is nn.Conv2d
        and name
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and layer.kernel_size != (1, 1)
    }


def linears(module: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that a chain could replace, by name. Those derived from nn.Linear, such as
    the one in nn.MultiheadAttention, are read by what holds them and stay."""
    return {n: layer for n, layer in module.named_modules() if type(layer) is nn.Linear and n}


def conv_part(
    layer: nn.Conv2d,
    weight: Tensor,
    *,
    rows: bool = False,
    columns: bool = False,
    groups: int = 1,
    last: bool = False,
) -> nn.Conv2d:
    """A convolution with `weight` (out, in / groups, k, l) that does `layer`'s stride, padding and
    dilation along rows, columns, both or neither. Only the `last` part of a chain has the bias:
    the ones after pad with zeros where the input was padded."""

    def of(value: tuple[int, ...], otherwise: int) -> tuple[int, int]:
        return (value[0] if rows else otherwise, value[1] if columns else otherwise)

    out, width, *kernel = weight.shape
    part = nn.Conv2d(
        width * groups,
        out,
        (kernel[0], kernel[1]),
        stride=of(layer.stride, 1),
        padding=of(cast(tuple[int, int], layer.padding), 0),
        dilation=of(layer.dilation, 1),
        groups=groups,
        bias=last and layer.bias is not None,
        dtype=layer.weight.dtype,
    )
    with torch.no_grad():
        part.weight.copy_(weight)
        if part.bias is not None and layer.bias is not None:
            part.bias.copy_(layer.bias)
    return part


def linear_pair(layer: nn.Linear, left: Tensor, right: Tensor) -> nn.Sequential:
    """Two linear layers in place of one; `left` (out, rank) @ `right` (rank, in) is its weight."""
    rank, dtype = len(right), layer.weight.dtype
    first = nn.Linear(layer.in_features, rank, bias=False, dtype=dtype)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None, dtype=dtype)
    with torch.no_grad():
        first.weight.copy_(right)
        second.weight.copy_(left)
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def multiplications(*chain: nn.Module) -> int:
    """Of convolutions one after the other, for each place of the last one's output. What comes
    before a stride has as many more places."""
    total, places = 0, 1
    for part in reversed(chain):
        assert isinstance(part, nn.Conv2d)
        total += places * part.weight.numel()
        places *= part.stride[0] * part.stride[1]
    return total


def put(module: nn.Module, name: str, replacement: nn.Module) -> None:
    """`replacement` in place of the layer called `name`, wherever `module` holds that layer."""
    layer = module.get_submodule(name)
    for parent in list(module.modules()):
        # Not named_children(), which names a layer that it holds twice only once.
        for attribute, child in list(parent._modules.items()):
            if child is layer:
                setattr(parent, attribute, replacement)
                if isinstance(parent, nn.TransformerEncoderLayer):
                    _call_its_layers(module, parent)


def fine_tune(module: nn.Module, context: Context, config: Training) -> None:
    """Train `module` as `config`'s training settings say; not at all with 0 epochs.

    Raises:
        NotFinite: the loss became NaN.
    """
    if config.epochs == 0:
        return
    how = Training(**config.model_dump(include=set(Training.model_fields)))
    training.train(module, context.task, how, seed=context.seed, progress=context.progress)


def _call_its_layers(module: nn.Module, encoder_layer: nn.TransformerEncoderLayer) -> None:
    """In eval mode torch computes these layers in one fused operation from their linear layers'
    weights. Both attributes are what torch itself sets for an activation that the fused one lacks.
    """
    encoder_layer.activation_relu_or_gelu = 0
    for encoder in module.modules():
        if isinstance(encoder, nn.TransformerEncoder) and encoder_layer in list(encoder.layers):
            encoder.use_nested_tensor = False
