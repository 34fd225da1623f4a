"""Channels are removed, and nothing else happens before the fine-tuning."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compressors.errors import NotApplicable
from compressors.techniques.prune_channels import remove_channels
from tests.compressors.few import EXAMPLE, X, conv_net, flattened, perceptron


@pytest.mark.parametrize("make", [conv_net, perceptron, flattened])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_removing_channels_is_the_same_as_zeroing_them(make: object, ratio: float) -> None:
    whole = make().eval()  # type: ignore[operator]
    zeroed, cut = copy.deepcopy(whole), copy.deepcopy(whole)
    removed = remove_channels(cut, EXAMPLE, ratio, 8)
    assert removed
    for name, channels in removed.items():
        layer = zeroed.get_submodule(name)
        with torch.no_grad():
            layer.weight[channels] = 0
            if layer.bias is not None:
                layer.bias[channels] = 0
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean[channels] = 0
    torch.testing.assert_close(cut(X), zeroed(X), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(cut(X), whole(X), atol=1e-4)


@pytest.mark.parametrize("make", [conv_net, perceptron])
def test_channels_are_gone_in_multiples_of_8_and_the_outputs_stay(make: object) -> None:
    network = make()  # type: ignore[operator]
    before = sum(p.numel() for p in network.parameters())
    remove_channels(network, EXAMPLE, 0.4, 8)
    assert sum(p.numel() for p in network.parameters()) < 0.7 * before
    widths = [p.shape[0] for p in network.parameters() if p.ndim > 1]
    assert widths[-1] == 10
    assert all(width % 8 == 0 for width in widths[:-1])


def test_the_lightest_channels_go() -> None:
    network = perceptron()
    with torch.no_grad():
        for channel in (3, 8, 20, 40):
            network[1].weight[channel] *= 1e-3  # type: ignore[index, operator]
            network[1].bias[channel] = 0  # type: ignore[index, operator]
            network[3].weight[:, channel] *= 1e-3  # type: ignore[index, operator]
    assert {3, 8, 20, 40} <= set(remove_channels(network, EXAMPLE, 0.2, 8)["1"])


class FixedWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(1, 32, 3), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.outer(self.inner(image).mean((2, 3)) * torch.ones(32))  # type: ignore[no-any-return]


def test_a_network_of_fixed_width_is_refused() -> None:
    with pytest.raises(NotApplicable, match="prune-channels"):
        remove_channels(FixedWidth(), EXAMPLE, 0.5, 8)
