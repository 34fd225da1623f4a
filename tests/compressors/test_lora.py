"""Adapters: only they train, and merged they compute what they did beside the weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from compressors import technique
from compressors.errors import NotApplicable
from compressors.technique import Network
from compressors.techniques.lora import adapt, merge, rounded
from compressors.training import validation_score
from tests.compressors.few import Few, X, context_of, conv_net, perceptron


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.encoder(image[:, 0])  # type: ignore[no-any-return]


def with_adapters(network: nn.Module) -> tuple[nn.Module, list[tuple[nn.Module, str]]]:
    """Adapters of rank 2 that are no longer zero."""
    adapted = adapt(network.eval(), 2, 6.0, "float")
    for layer, name in adapted:
        nn.init.normal_(layer.parametrizations[name][0].up, std=0.1)  # type: ignore[index, union-attr]
    return network, adapted


@pytest.mark.parametrize("make", [conv_net, perceptron, Attention])
@torch.no_grad()
def test_merged_equals_unmerged(make: object) -> None:
    torch.manual_seed(0)
    before = make().eval()(X)  # type: ignore[operator]
    torch.manual_seed(0)
    network, adapted = with_adapters(make())  # type: ignore[operator]
    assert adapted
    unmerged = network(X)
    assert not torch.allclose(unmerged, before, atol=1e-3)
    merge(adapted)
    assert not any(parametrize.is_parametrized(module) for module in network.modules())
    torch.testing.assert_close(network(X), unmerged, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_adapter_adds_what_two_layers_beside_would() -> None:
    torch.manual_seed(0)
    linear, conv = nn.Linear(12, 10), nn.Conv2d(6, 8, 3, stride=2, padding=1)
    x, image = torch.randn(5, 12), torch.randn(2, 6, 9, 9)
    whole, whole_image = linear(x), conv(image)
    network, _ = with_adapters(nn.ModuleList([linear, conv]))
    beside, of_conv = (layer.parametrizations.weight[0] for layer in network)  # type: ignore[union-attr, index]
    expected = whole + 3.0 * F.linear(F.linear(x, beside.down), beside.up)
    torch.testing.assert_close(linear(x), expected, rtol=1e-4, atol=1e-5)
    down = F.conv2d(image, of_conv.down.view(2, 6, 3, 3), stride=2, padding=1)
    expected = whole_image + 3.0 * F.conv2d(down, of_conv.up[..., None, None])
    torch.testing.assert_close(conv(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("base", ["float", "int8", "int4"])
def test_only_adapters_train_and_each_weight_changes_by_their_rank(base: str) -> None:
    task, found = Few(), technique.get("lora")
    config = found.Config.model_validate({"epochs": 1, "rank": 3, "base": base})
    network = found.apply(Network(task.network()), context_of(task), config).module
    whole, changed = task.network().state_dict(), network.state_dict()
    assert whole.keys() == changed.keys()
    moved = []
    for name, before in whole.items():
        if before.ndim < 2:
            assert torch.equal(changed[name], before), name  # norms, statistics and biases
            continue
        frozen = rounded(before, base)  # type: ignore[arg-type]
        spectrum = torch.linalg.svdvals((changed[name] - frozen).flatten(1).double())
        assert (spectrum[3:] < 1e-5 * whole[name].norm()).all(), name
        moved.append(spectrum[0] > 1e-4)
    assert sum(moved) >= 3
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_adapters_mend_what_rounding_broke() -> None:
    task, found = Few(), technique.get("lora")
    broken = task.network()
    for parameter in broken.parameters():
        if parameter.ndim > 1:
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            parameter.data += parameter.data.std() * noise
    validation = task.samples("validation")
    before = validation_score(broken, task, validation)
    config = found.Config.model_validate({"epochs": 6, "learning_rate": 0.01})
    mended = found.apply(Network(broken), context_of(task), config).module
    assert validation_score(mended, task, validation) > before + 0.1


@pytest.mark.parametrize(("base", "most", "size"), [("int8", 127, 150), ("int4", 7, 64)])
def test_the_base_is_on_a_grid_of_that_many_integers(base: str, most: int, size: int) -> None:
    weight = torch.randn(4, 150, generator=torch.Generator().manual_seed(0))
    got = rounded(weight, base)  # type: ignore[arg-type]
    for part, whole in zip(got.split(size, 1), weight.split(size, 1), strict=True):
        step = whole.abs().amax(1, keepdim=True) / most
        steps = part / step
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
        assert ((part - whole).abs() <= step / 2 * 1.001).all()
    assert torch.equal(rounded(weight, "float"), weight)
    assert torch.equal(rounded(torch.zeros(2, 70), base), torch.zeros(2, 70))  # type: ignore[arg-type]


def test_shared_weights_and_recurrent_ones_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(30, 16)
            self.lstm = nn.LSTM(16, 16)
            self.inner = nn.Linear(16, 16)
            self.head = nn.Linear(16, 30)
            self.head.weight = self.embedding.weight

    network = Tied()
    assert adapt(network, 2, 4.0, "float") == [(network.inner, "weight")]


def test_what_is_too_small_is_refused_by_name() -> None:
    task, found = Few(), technique.get("lora")
    config = found.Config.model_validate({"rank": 1000})
    with pytest.raises(NotApplicable, match=r"lora: no linear layer, .* of rank 1000"):
        found.apply(Network(task.network()), context_of(task), config)
