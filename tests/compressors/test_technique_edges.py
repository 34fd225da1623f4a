"""Networks that techniques got wrong once."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressors import technique
from compressors.task import Samples, Split, Task
from compressors.technique import Context, Network
from compressors.techniques.low_rank import split_layers


class _Concatenates(nn.Module):
    """Two branches side by side: a channel's place further on depends on the other branch."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 32, 3)
        self.b = nn.Conv2d(3, 32, 3)
        self.c = nn.Conv2d(64, 32, 3)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.relu(torch.cat([self.a(x), self.b(x)], 1))
        return self.head(torch.relu(self.c(both)).mean((2, 3)))  # type: ignore[no-any-return]


def _samples(shape: tuple[int, ...], count: int = 32) -> Samples:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((count, *shape)).astype(np.float32)
    return Samples({"x": inputs}, rng.integers(0, 4, count))


class _Perceptrons(Task):
    name = "perceptrons"

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4)).eval()

    def samples(self, split: Split) -> Samples:  # noqa: ARG002
        return _samples((20,))

    def student(self) -> nn.Module:
        return nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 4))


def _pruned(network: nn.Module, samples: Samples) -> nn.Module:
    class Given(Task):
        name = "given"

        def network(self) -> nn.Module:
            return copy.deepcopy(network)

        def samples(self, split: Split) -> Samples:  # noqa: ARG002
            return samples

    found, task = technique.get("prune-channels"), Given()
    context = Context(task, task.network(), 0, lambda _fraction, _text: None, {})
    return found.apply(Network(task.network()), context, found.Config(epochs=0)).module


def test_each_branch_of_a_concatenation_loses_its_own_lightest_channels() -> None:
    torch.manual_seed(0)
    network = _Concatenates().eval()
    stay = {"a": slice(16, 32), "b": slice(0, 16)}
    with torch.no_grad():
        for name, light in {"a": slice(0, 16), "b": slice(16, 32)}.items():
            network.get_submodule(name).weight[light] *= 1e-3  # type: ignore[index]
        network.c.weight[:, :16] *= 1e-3
        network.c.weight[:, 48:] *= 1e-3
    cut = _pruned(network, _samples((3, 12, 12)))
    for name, channels in stay.items():
        whole = network.get_submodule(name).weight
        assert torch.equal(cut.get_submodule(name).weight, whole[channels])  # type: ignore[index]
    assert cut.c.weight.shape == (16, 32, 3, 3)  # type: ignore[union-attr]


def test_a_network_frozen_for_inference_can_be_pruned() -> None:
    network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4)).requires_grad_(False)
    with torch.no_grad():
        cut = _pruned(network, _samples((20,)))
    assert cut[0].weight.shape == (32, 20)  # type: ignore[index]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_convolutions_that_do_not_pad_with_zeros_are_not_split(mode: str) -> None:
    layer = nn.Conv2d(32, 32, 3, padding=1, padding_mode=mode)  # type: ignore[arg-type]
    assert split_layers(nn.Sequential(layer), 0.5, 8) == []


def test_the_students_first_weights_come_from_the_contexts_seed() -> None:
    task, distil = _Perceptrons(), technique.get("distil")
    made = []
    # The same teacher both times: only the student's start may differ.
    teacher = task.network()
    for elsewhere in (1, 2):
        torch.manual_seed(elsewhere)
        context = Context(task, teacher, 7, lambda _fraction, _text: None, {})
        network = distil.apply(Network(task.network()), context, distil.Config(epochs=1))
        made.append(network.module.state_dict())
    for name, tensor in made[0].items():
        assert torch.equal(tensor, made[1][name]), name
