"""CP: finds components that are there, keeps to the cost, and computes what its weights say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.errors import NotApplicable
from compressors.surgery.splitting import multiplications
from compressors.surgery.tensors import canonical
from compressors.techniques.cp import split_cp
from tests.compressors.convs import CONVS, Images, Linears, applied_to, full_image, product


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_weight_of_that_many_components_is_found(rank: int) -> None:
    torch.manual_seed(rank)
    layer = nn.Conv2d(8, 10, 3)
    factors = [torch.randn(size, rank) for size in layer.weight.shape]
    layer.weight.data = torch.einsum("or,ir,yr,xr->oiyx", *factors)
    chain = split_cp(layer, rank, 500, 0)
    error = (product(chain, layer) - layer.weight).norm() / layer.weight.norm()
    assert error < 0.02


@settings(max_examples=15)
@given(CONVS, st.integers(1, 12))
def test_strides_padding_and_dilation_stay_at_any_rank(layer: nn.Conv2d, rank: int) -> None:
    """What the chain computes is the convolution with the weight that it amounts to."""
    most = layer.weight.numel() // max(layer.weight.shape)
    chain, x = split_cp(layer, min(rank, most), 5, 0), full_image(layer)
    whole = nn.functional.conv2d(
        x, product(chain, layer), layer.bias, layer.stride, layer.padding, layer.dilation
    )
    torch.testing.assert_close(chain(x), whole, rtol=1e-4, atol=1e-5)


def test_more_components_are_nearer_and_none_outgrows_the_weights() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 16, 3, 3)
    errors = []
    for rank in (4, 16, 48):
        factors = canonical(weight, rank, 100, 0)
        rebuilt = torch.einsum("or,ir,yr,xr->oiyx", *factors)
        errors.append(float((rebuilt - weight).norm() / weight.norm()))
        sizes = torch.stack([factor.norm(dim=0) for factor in factors])
        torch.testing.assert_close(sizes, sizes[:1].expand(4, rank), rtol=1e-3, atol=1e-4)
        assert sizes.prod(dim=0).max() < 2 * weight.norm()
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.6


@pytest.mark.parametrize("cost", [0.2, 0.5])
def test_every_convolution_keeps_to_the_cost(cost: float) -> None:
    whole, network = (
        Images().network(),
        applied_to(Images(), "cp", cost=cost, round_to=4, iterations=3),
    )
    for name in ("down", "deep"):
        chain = network.get_submodule(name)
        assert [part.groups for part in chain][1] == chain[0].out_channels  # type: ignore[union-attr, index]
        most = cost * multiplications(whole.get_submodule(name))
        rank = chain[0].out_channels  # type: ignore[index, union-attr]
        assert multiplications(*chain) <= most < multiplications(*chain) * (rank + 4) / rank  # type: ignore[misc, operator]
    assert isinstance(network.one, nn.Conv2d) and isinstance(network.grouped, nn.Conv2d)


def test_a_seed_gives_the_same_factors() -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    once = [canonical(weight, 8, 20, seed) for seed in (1, 1, 2)]
    assert torch.equal(once[0][0], once[1][0]) and not torch.equal(once[0][0], once[2][0])


def test_what_cannot_be_split_is_refused_by_name() -> None:
    with pytest.raises(NotApplicable, match="cp: no convolution larger than 1 x 1"):
        applied_to(Linears(), "cp")
    with pytest.raises(NotApplicable, match=r"cost 0.01 in multiples of 64"):
        applied_to(Images(), "cp", cost=0.01, round_to=64)
