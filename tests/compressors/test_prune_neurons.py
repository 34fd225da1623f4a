"""Hidden neurons between linear layers are removed, wherever they are, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressors import technique
from compressors.errors import NotApplicable
from compressors.macs import macs
from compressors.technique import Network
from compressors.techniques.prune_neurons import neurons
from compressors.verify import weights_digest
from tests.compressors.builds import build_of
from tests.compressors.few import X, context_of, perceptron
from tests.compressors.pruned import (
    WORDS,
    Bert,
    TorchEncoder,
    Words,
    removed_and_zeroed,
    same,
)


class Gated(nn.Module):
    """A gated unit, a residual sum, batch norm, two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 24), nn.BatchNorm1d(24)
        self.gate, self.up, self.down = nn.Linear(24, 40), nn.Linear(24, 40), nn.Linear(40, 24)
        self.head, self.other = nn.Linear(24, 10), nn.Linear(24, 2)

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.norm(self.first(x))) * scale
        x = x + 0.5 * self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return self.head(x), self.other(x)


TWO = (torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), torch.full((5, 1), 0.7))


def perturbed(network: nn.Module) -> nn.Module:
    """With norms and biases that are not the first ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor += 0.2 * torch.rand(tensor.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    ("make", "inputs", "places"),
    [
        (perceptron, (X,), 2),
        (Gated, TWO, 2),
        (TorchEncoder, WORDS, 2),
        (Bert, WORDS, 2),
    ],
)
def test_removing_neurons_is_the_same_as_zeroing_them(
    make: object, inputs: tuple[Tensor, ...], places: int
) -> None:
    whole = perturbed(make())  # type: ignore[operator]
    for seed, share in ((0, 0.3), (1, 0.8)):
        cut, zeroed = removed_and_zeroed(whole, inputs, neurons, share, seed)
        same(cut, zeroed, inputs)
        assert macs(cut, inputs) < macs(whole, inputs)
        with pytest.raises(AssertionError):
            same(cut, whole, inputs)
    assert len(neurons(whole, inputs)) == places


def test_neurons_after_a_sigmoid_leave_as_their_readers_forget_them() -> None:
    """A removed neuron is one whose output is zero, which f(0) need not be."""
    network = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Linear(16, 3)).eval()
    cut, forgot = copy.deepcopy(network), copy.deepcopy(network)
    neurons(cut, TWO[:1])[0].remove([1, 5])
    with torch.no_grad():
        forgot[2].weight[:, [1, 5]] = 0  # type: ignore[index, operator]
    same(cut, forgot, TWO[:1])


class Read(nn.Module):
    """Hidden features that something else reads: `kind` says what."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 10)
        self.norm, self.constant = nn.LayerNorm(16), nn.Parameter(torch.ones(16))

    def forward(self, x: Tensor, _scale: Tensor) -> object:
        x = self.first(x)
        match self.kind:
            case "output":
                return self.second(x), x
            case "norm":
                x = self.norm(x)
            case "constant":
                x = x * self.constant
            case "reshape":
                x = x.view(len(x), 4, 4).transpose(1, 2).flatten(1)
            case "sum":
                x = x + x.sum(1, keepdim=True)
            case "softmax":
                x = x.softmax(1)
            case "reused":
                x = self.second(torch.relu(x))
                return self.second(torch.cat((x, x[:, :6]), 1))
        return self.second(x)


@pytest.mark.parametrize(
    "kind", ["output", "norm", "constant", "reshape", "sum", "softmax", "reused"]
)
def test_neurons_that_something_else_reads_stay(kind: str) -> None:
    assert neurons(Read("nothing").eval(), TWO)
    assert not neurons(Read(kind).eval(), TWO)


def applied(network: nn.Module, **settings: object) -> nn.Module:
    found = technique.get("prune-neurons")
    config = found.Config.model_validate({"epochs": 0, "samples": 32} | settings)
    task = Words(network)
    return found.apply(Network(task.network()), context_of(task), config).module


def test_each_criterion_makes_another_choice() -> None:
    chosen = {
        weights_digest(applied(Bert(), criterion=criterion))
        for criterion in ("magnitude", "wanda", "taylor", "obd", "random")
    }
    assert len(chosen) == 5
    with pytest.raises(NotApplicable, match=r"prune-neurons: no neurons .* apoz"):
        applied(Bert(), criterion="apoz")  # GELU has no zeros


@pytest.mark.parametrize("make", [TorchEncoder, Bert])
def test_neurons_go_in_multiples_of_8_and_the_rest_trains(make: type[nn.Module]) -> None:
    network = applied(make(), ratio=0.4, epochs=1)
    inner = [
        layer.out_features
        for name, layer in network.named_modules()
        if name.endswith(("linear1", "intermediate.dense"))
    ]
    assert inner == [40, 40]
    assert network(*WORDS).shape == (4, 10)


def test_a_network_without_hidden_neurons_is_refused() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(50, 16), nn.Linear(16, 10)

        def forward(self, ids: Tensor, _mask: Tensor) -> Tensor:
            return self.head(self.embedding(ids).mean(1))  # type: ignore[no-any-return]

    with pytest.raises(NotApplicable, match="prune-neurons: no neurons can be removed"):
        applied(Single())


WORDS_TASK = """
from tests.compressors.pruned import {network}, Words

class Task(Words):
    def __init__(self):
        super().__init__({network}())
"""


@pytest.mark.parametrize("network", ["Bert", "TorchEncoder"])
def test_what_is_left_runs_on_the_engine(network: str, tmp_path: Path) -> None:
    file = tmp_path / "words_task.py"
    file.write_text(WORDS_TASK.format(network=network))
    outcomes = build_of(
        "[variants.fp32]\n[variants.thin]\n"
        'steps = [{ technique = "prune-neurons", epochs = 0 }, '
        '{ technique = "prune-heads", epochs = 0, samples = 32 }]',
        tmp_path / "store",
        str(file),
    )
    thin, whole = outcomes["thin"].card, outcomes["fp32"].card
    assert thin is not None and whole is not None, outcomes["thin"].reason
    assert thin.parameters < whole.parameters
