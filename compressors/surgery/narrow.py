"""Layers that lose features, in place: the same modules with smaller weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def parameter(whole: Tensor, dimension: int, gone: Sequence[int]) -> nn.Parameter:
    """`whole` without the places `gone` along `dimension`."""
    staying = torch.ones(whole.shape[dimension], dtype=torch.bool)
    staying[list(gone)] = False
    kept = whole.detach().index_select(dimension, staying.nonzero().flatten())
    return nn.Parameter(kept.contiguous(), requires_grad=whole.requires_grad)


def linear(layer: nn.Linear, gone: Sequence[int], *, outputs: bool) -> None:
    """Take output or input features out of `layer`, in place."""
    layer.weight = parameter(layer.weight, 0 if outputs else 1, gone)
    if not outputs:
        layer.in_features = layer.weight.shape[1]
        return
    layer.out_features = layer.weight.shape[0]
    if layer.bias is not None:
        layer.bias = parameter(layer.bias, 0, gone)


def batch_norm(norm: nn.BatchNorm1d, gone: Sequence[int]) -> None:
    """Take features out of a batch norm, in place."""
    staying = [i for i in range(norm.num_features) if i not in set(gone)]
    norm.num_features = len(staying)
    if norm.affine:
        norm.weight, norm.bias = parameter(norm.weight, 0, gone), parameter(norm.bias, 0, gone)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean = norm.running_mean[staying]
        norm.running_var = norm.running_var[staying]
