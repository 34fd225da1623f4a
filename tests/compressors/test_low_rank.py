"""Layers split in two: exact at full rank, otherwise as near as can be, and only where it pays."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from compressors.surgery import splitting
from compressors.techniques.low_rank import split_conv, split_layers, split_linear
from tests.compressors.convs import CONVS
from tests.compressors.few import X, conv_net


@settings(max_examples=60)
@given(CONVS)
def test_a_split_convolution_of_full_rank_computes_the_same(layer: nn.Conv2d) -> None:
    k, width = layer.kernel_size
    full = min(layer.in_channels * k, layer.out_channels * width)
    x = torch.randn(2, layer.in_channels, 11, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(split_conv(layer, full)(x), layer(x), rtol=1e-4, atol=1e-5)


def test_a_split_linear_layer_of_full_rank_computes_the_same() -> None:
    layer, x = nn.Linear(12, 7), torch.randn(5, 12)
    torch.testing.assert_close(split_linear(layer, 7)(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_of_a_split_is_the_tail_of_the_spectrum(rank: int) -> None:
    """Eckart & Young: the squares of the singular values that were dropped."""
    conv, linear = nn.Conv2d(4, 6, 3, bias=False), nn.Linear(12, 7, bias=False)
    down, across = split_conv(conv, rank)
    product = torch.einsum("rik,orw->oikw", down.weight[..., 0], across.weight[:, :, 0])
    matrix = conv.weight.permute(1, 2, 0, 3).reshape(12, 18)
    first, second = split_linear(linear, rank)
    for error, of in (
        (product - conv.weight, matrix),
        (second.weight @ first.weight - linear.weight, linear.weight),
    ):
        tail = torch.linalg.svdvals(of)[rank:].square().sum()
        torch.testing.assert_close(error.square().sum(), tail, rtol=1e-3, atol=1e-6)


def multiplications(network: nn.Module) -> int:
    """Of one forward pass of X[:1], counted as the layers run."""
    counted = []

    def count(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        counted.append(layer.weight[0].numel() * output.numel())  # type: ignore[index, operator]

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    network.eval()(X[:1])
    for hook in hooks:
        hook.remove()
    return sum(counted)


@pytest.mark.parametrize("cost", [0.2, 0.4, 0.8])
def test_only_layers_that_gain_are_split_and_to_the_cost_asked_for(cost: float) -> None:
    whole, network = conv_net(), conv_net()
    done = split_layers(network, cost, 8)
    for name, layer in whole.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            split = network.get_submodule(name)
            assert isinstance(split, nn.Sequential) == (name in done)
            if isinstance(layer, nn.Conv2d) and isinstance(split, nn.Sequential):
                # With the stride of the second, which the first does not make.
                assert splitting.multiplications(*split) <= cost * layer.weight.numel()
    assert "stem" not in done and "head" not in done
    assert multiplications(network) < multiplications(whole)
    kept = sum(multiplications_of(whole, name) for name in names_of(whole) if name not in done)
    assert multiplications(network) - kept <= cost * (multiplications(whole) - kept)


def names_of(network: nn.Module) -> list[str]:
    return [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def multiplications_of(network: nn.Module, name: str) -> int:
    before = multiplications(network)
    changed = copy.deepcopy(network)
    parent, _, attribute = name.rpartition(".")
    setattr(changed.get_submodule(parent), attribute, Uncounted(changed.get_submodule(name)))
    return before - multiplications(changed)


class Uncounted(nn.Module):
    """Its layer is called through a function, so that no hook sees it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (layer,)

    def forward(self, x: Tensor) -> Tensor:
        return self._layer[0](x)  # type: ignore[no-any-return]
