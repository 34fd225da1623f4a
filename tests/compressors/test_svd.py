"""Linear layers in two: ranks as asked for, nearest in the weights or in the outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from compressors import technique
from compressors.errors import NotApplicable
from compressors.surgery.observe import draw
from compressors.task import Samples, Split, Task
from compressors.technique import Context, Network
from compressors.training import outputs_of
from compressors.verify import weights_digest


class Perceptrons(Task):
    """Inputs that mostly lie in a few directions, as activations do."""

    name = "perceptrons"

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)
        ).eval()

    def samples(self, split: Split) -> Samples:
        assert split != "test"
        rng = np.random.default_rng(len(split))
        mix = np.random.default_rng(0).standard_normal((6, 48))
        x = rng.standard_normal((200, 6)) @ mix + 0.1 * rng.standard_normal((200, 48))
        return Samples({"x": x.astype(np.float32)}, rng.integers(0, 4, 200))


class Tokens(Task):
    name = "tokens"

    def __init__(self, make: type[nn.Module]) -> None:
        self.make = make

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def samples(self, split: Split) -> Samples:
        assert split != "test"
        rng = np.random.default_rng(len(split))
        ids = rng.integers(0, 30, (64, 6))
        return Samples({"ids": ids, "mask": np.ones((64, 6), np.int64)}, rng.integers(0, 3, 64))


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=30,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
        )
        self.encoder = BertModel(config)
        self.head = nn.Linear(32, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.head(states[:, 0])  # type: ignore[no-any-return]


class Torch(nn.Module):
    """torch's own transformer, one fused operation in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 32)
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(self.embedding(ids), src_key_padding_mask=mask == 0)
        return self.head(states[:, 0])  # type: ignore[no-any-return]


def svd(task: Task, **settings: Any) -> nn.Module:
    found = technique.get("svd")
    context = Context(task, task.network(), 0, lambda _fraction, _text: None, {})
    config = found.Config.model_validate({"epochs": 0, **settings})
    return found.apply(Network(task.network()), context, config).module


def ranks(network: nn.Module) -> dict[str, int]:
    return {
        name: one[0].out_features  # type: ignore[index, union-attr, misc]
        for name, one in network.named_modules()
        if name and type(one) is nn.Sequential
    }


def test_ranks_are_the_share_asked_for_in_multiples() -> None:
    assert ranks(svd(Perceptrons(), ratio=0.5)) == {"0": 24, "2": 16}
    assert ranks(svd(Perceptrons(), ratio=0.3, round_to=1)) == {"0": 14, "2": 10, "4": 1}


@pytest.mark.parametrize("energy", [0.3, 0.6])
def test_ranks_are_the_least_that_keep_the_energy(energy: float) -> None:
    whole = Perceptrons().network()
    for name, rank in ranks(
        svd(Perceptrons(), rank_by="energy", energy=energy, round_to=1)
    ).items():
        squared = torch.linalg.svdvals(whole.get_submodule(name).weight).square()
        kept = squared.cumsum(0) / squared.sum()
        assert kept[rank - 1] >= energy
        assert rank == 1 or kept[rank - 2] < energy


def test_the_two_layers_have_the_weights_of_that_rank_and_the_bias() -> None:
    network, whole = svd(Perceptrons(), ratio=0.5), Perceptrons().network()
    for name, rank in ranks(network).items():
        first, second = network.get_submodule(name)  # type: ignore[misc]
        layer = whole.get_submodule(name)
        assert first.bias is None and torch.equal(second.bias, layer.bias)
        error = (second.weight @ first.weight - layer.weight).square().sum()
        tail = torch.linalg.svdvals(layer.weight)[rank:].square().sum()
        torch.testing.assert_close(error, tail, rtol=1e-3, atol=1e-6)


def test_weighted_by_activations_each_layers_outputs_are_nearer_on_the_samples() -> None:
    task = Perceptrons()
    whole = task.network()
    seen: dict[str, Tensor] = {}
    for name in ("0", "2"):
        whole.get_submodule(name).register_forward_pre_hook(
            lambda _layer, inputs, name=name: seen.update({name: inputs[0]})
        )
    with torch.no_grad():
        whole(torch.from_numpy(draw(task, 128, 0).inputs["x"]))
        errors = {}
        for weighting in ("weights", "activations"):
            network = svd(task, ratio=0.25, weighting=weighting, samples=128)
            for name in seen:
                got = network.get_submodule(name)(seen[name])
                wanted = whole.get_submodule(name)(seen[name])
                errors[weighting, name] = float((got - wanted).norm() / wanted.norm())
    for name in seen:
        assert errors["activations", name] < 0.8 * errors["weights", name]


def error(network: nn.Module, task: Task) -> float:
    samples = task.samples("validation")
    whole = outputs_of(task.network(), samples)[0]
    return float((outputs_of(network, samples)[0] - whole).norm() / whole.norm())


class OneHurts(Perceptrons):
    """Two branches of equal layers; the second hardly counts in the sum."""

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return Branches().eval()


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.much, self.little = nn.Linear(48, 48), nn.Linear(48, 48)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.much(x) + 0.1 * self.little(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("weighting", ["weights", "activations"])
def test_by_sensitivity_the_layer_that_hurts_least_has_the_smallest_rank(weighting: str) -> None:
    task = OneHurts()
    network = svd(task, rank_by="sensitivity", cost=0.5, round_to=2, weighting=weighting)
    thin = ranks(network)
    assert thin["little"] < thin.get("much", 48)
    linear = [one for one in network.modules() if isinstance(one, nn.Linear)]
    assert sum(one.weight.numel() for one in linear) <= 0.5 * (2 * 48 * 48 + 4 * 48)
    even = svd(task, ratio=0.25, round_to=1, weighting=weighting)
    assert error(network, task) < error(even, task)


@pytest.mark.parametrize("make", [Bert, Torch])
@pytest.mark.parametrize("rank_by", ["ratio", "sensitivity"])
@pytest.mark.parametrize("weighting", ["weights", "activations"])
def test_transformers(make: type[nn.Module], rank_by: str, weighting: str) -> None:
    task = Tokens(make)
    amount = {"cost": 0.6} if rank_by == "sensitivity" else {}
    network = svd(task, rank_by=rank_by, weighting=weighting, samples=16, **amount)
    names = ranks(network)
    assert sum("encoder" in name for name in names) >= 2
    assert error(network, task) < 1


def test_torch_transformers_compute_with_what_was_put_there() -> None:
    task = Tokens(Torch)
    network = svd(task, rank_by="ratio", ratio=0.5, round_to=1).eval()
    dense = task.network()
    for name in ranks(network):
        first, second = network.get_submodule(name)  # type: ignore[misc]
        dense.get_submodule(name).weight.data = second.weight @ first.weight
    assert {"encoder.layers.0.linear1", "encoder.layers.1.linear2"} <= set(ranks(network))
    ids = torch.from_numpy(task.samples("validation").inputs["ids"])
    mask = torch.arange(6)[None] < torch.arange(64)[:, None] % 6 + 1
    with torch.no_grad():
        got, wanted = network(ids, mask.long()), dense(ids, mask.long())
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_held_twice_is_replaced_twice() -> None:
    class Twice(Perceptrons):
        def network(self) -> nn.Module:
            torch.manual_seed(0)
            shared = nn.Linear(48, 48)
            return nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(48, 4)).eval()

    network = svd(Twice())
    assert network[0] is network[2] and isinstance(network[0], nn.Sequential)  # type: ignore[index]


def test_fine_tuning_wins_back_and_none_is_none() -> None:
    assert weights_digest(svd(Perceptrons())) == weights_digest(svd(Perceptrons()))
    assert weights_digest(svd(Perceptrons())) != weights_digest(svd(Perceptrons(), epochs=1))


class Convolution(Perceptrons):
    def network(self) -> nn.Module:
        return nn.Sequential(nn.Unflatten(1, (1, 48)), nn.Conv1d(1, 4, 48), nn.Flatten()).eval()


def test_what_cannot_be_split_is_refused_by_name() -> None:
    with pytest.raises(NotApplicable, match="svd: the network has no linear layer"):
        svd(Convolution())
    with pytest.raises(NotApplicable, match=r"svd: no linear layer is cheaper in two at ratio 0.9"):
        svd(Perceptrons(), ratio=0.9)
    with pytest.raises(NotApplicable, match=r"svd: cost 0.1 is less than ranks of 32"):
        svd(Perceptrons(), rank_by="sensitivity", cost=0.1, round_to=32)
