"""Tensor trains: exact at full ranks, within the sum of what the cuts lose otherwise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.errors import NotApplicable
from compressors.surgery.splitting import multiplications
from compressors.surgery.tensors import cuts, ranks_of
from compressors.techniques.tensor_train import split_train
from tests.compressors.convs import CONVS, Images, Linears, applied_to, full_image, product


def full(layer: nn.Conv2d) -> tuple[int, int, int]:
    first, second, third = (min(matrix.shape) for matrix in cuts(layer.weight))
    return first, second, third


@settings(max_examples=20)
@given(CONVS)
def test_of_full_ranks_it_computes_the_same(layer: nn.Conv2d) -> None:
    x, chain = full_image(layer), split_train(layer, full(layer))
    torch.testing.assert_close(chain(x), layer(x), rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(CONVS, st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 6)))
def test_strides_padding_and_dilation_stay_at_any_ranks(
    layer: nn.Conv2d, ranks: tuple[int, int, int]
) -> None:
    """What the chain computes is the convolution with the weight that it amounts to."""
    first, second, third = map(min, ranks, full(layer))
    chain, x = split_train(layer, (first, second, third)), full_image(layer)
    whole = nn.functional.conv2d(
        x, product(chain, layer), layer.bias, layer.stride, layer.padding, layer.dilation
    )
    torch.testing.assert_close(chain(x), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ranks", [(1, 1, 1), (3, 5, 2), (6, 12, 8), (2, 18, 8)])
def test_the_error_is_within_the_bound(ranks: tuple[int, int, int]) -> None:
    """Oseledets: at most the sum of what the three cuts lose, at least the largest."""
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 8, 3)
    error = (product(split_train(layer, ranks), layer) - layer.weight).square().sum().item()
    tails = [
        torch.linalg.svdvals(matrix)[rank:].square().sum().item()
        for matrix, rank in zip(cuts(layer.weight.detach()), ranks, strict=True)
    ]
    assert max(tails) * 0.999 - 1e-6 <= error <= sum(tails) * 1.001 + 1e-6


@pytest.mark.parametrize("energy", [0.3, 0.7, 0.95])
def test_ranks_by_energy_keep_it(energy: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(12, 16, 3)
    first, second, third = ranks_of(cuts(layer.weight), ratio=None, energy=energy, round_to=1)
    chain = split_train(layer, (first, second, third))
    error = (product(chain, layer) - layer.weight).square().sum()
    assert error <= (1 - energy) * layer.weight.square().sum()


def test_only_convolutions_that_gain_are_split() -> None:
    whole, network = Images().network(), applied_to(Images(), "tensor-train")
    for name in ("down", "deep"):
        chain = network.get_submodule(name)
        assert [part.groups for part in chain] == [1] * 4  # type: ignore[union-attr]
        assert multiplications(*chain) < multiplications(whole.get_submodule(name))  # type: ignore[misc]
    assert isinstance(network.one, nn.Conv2d) and isinstance(network.grouped, nn.Conv2d)


def test_what_cannot_be_split_is_refused_by_name() -> None:
    with pytest.raises(NotApplicable, match="tensor-train: no convolution larger than 1 x 1"):
        applied_to(Linears(), "tensor-train")
    with pytest.raises(NotApplicable, match=r"at energy 0.99 with ranks in multiples of 8"):
        applied_to(Images(), "tensor-train", rank_by="energy", energy=0.99)
