"""Tucker-2: exact at full ranks, within the bound of the truncated SVDs otherwise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.errors import NotApplicable
from compressors.surgery.splitting import multiplications
from compressors.surgery.tensors import modes, ranks_of
from compressors.techniques.tucker import split_tucker
from tests.compressors.convs import CONVS, Images, Linears, applied_to, full_image, product


def full(layer: nn.Conv2d) -> tuple[int, int]:
    out, into = (min(matrix.shape) for matrix in modes(layer.weight))
    return out, into


@settings(max_examples=20)
@given(CONVS)
def test_of_full_ranks_it_computes_the_same(layer: nn.Conv2d) -> None:
    x = full_image(layer)
    chain = split_tucker(layer, full(layer))
    torch.testing.assert_close(chain(x), layer(x), rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(CONVS, st.integers(1, 6), st.integers(1, 6))
def test_strides_padding_and_dilation_stay_at_any_ranks(
    layer: nn.Conv2d, out: int, into: int
) -> None:
    """What the chain computes is the convolution with the weight that it amounts to."""
    most = full(layer)
    chain = split_tucker(layer, (min(out, most[0]), min(into, most[1])))
    x = full_image(layer)
    whole = nn.functional.conv2d(
        x, product(chain, layer), layer.bias, layer.stride, layer.padding, layer.dilation
    )
    torch.testing.assert_close(chain(x), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ranks", [(1, 1), (3, 2), (2, 5), (7, 6)])
def test_the_error_is_within_the_bound(ranks: tuple[int, int]) -> None:
    """De Lathauwer et al.: at most the sum of what both unfoldings lose, at least the larger."""
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 8, 3)
    error = (product(split_tucker(layer, ranks), layer) - layer.weight).square().sum().item()
    tails = [
        torch.linalg.svdvals(matrix)[rank:].square().sum().item()
        for matrix, rank in zip(modes(layer.weight.detach()), ranks, strict=True)
    ]
    assert max(tails) * 0.999 - 1e-6 <= error <= sum(tails) * 1.001 + 1e-6


@pytest.mark.parametrize("energy", [0.3, 0.7, 0.95])
def test_ranks_by_energy_keep_it(energy: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(12, 16, 3)
    out, into = ranks_of(modes(layer.weight), ratio=None, energy=energy, round_to=1)
    error = (product(split_tucker(layer, (out, into)), layer) - layer.weight).square().sum()
    assert error <= (1 - energy) * layer.weight.square().sum()
    assert out <= 16 and into <= 12


def test_only_convolutions_that_gain_are_split_and_to_the_ratio_asked_for() -> None:
    network = applied_to(Images(), "tucker", ratio=0.5)
    assert [part.weight.shape[:2] for part in network.down] == [(16, 32), (16, 16), (32, 16)]  # type: ignore[union-attr]
    assert isinstance(network.one, nn.Conv2d) and isinstance(network.grouped, nn.Conv2d)
    assert multiplications(*network.deep) < multiplications(Images().network().deep)  # type: ignore[misc, arg-type]


def test_a_first_layer_of_few_channels_keeps_them() -> None:
    chain = split_tucker(nn.Conv2d(3, 32, 3), (8, 3))
    assert [tuple(part.weight.shape) for part in chain] == [(8, 3, 3, 3), (32, 8, 1, 1)]


def test_what_cannot_be_split_is_refused_by_name() -> None:
    with pytest.raises(NotApplicable, match="tucker: no convolution larger than 1 x 1"):
        applied_to(Linears(), "tucker")
    with pytest.raises(NotApplicable, match=r"at energy 0.99 with ranks in multiples of 8"):
        applied_to(Images(), "tucker", rank_by="energy", energy=0.99)
