"""Channels are removed, and nothing else happens before the fine-tuning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compressors import technique
from compressors.errors import NotApplicable
from compressors.macs import macs
from compressors.surgery.structure import Pruning, choose
from compressors.surgery.units import importance
from compressors.technique import Network
from compressors.techniques.prune_channels import channels
from compressors.verify import weights_digest
from tests.compressors.builds import build_of
from tests.compressors.few import Few, X, context_of, conv_net, flattened, perceptron
from tests.compressors.pruned import WORDS, Bert, TorchEncoder, removed_and_zeroed, same
from tests.tiny_task import Tiny, network_of

EIGHT = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Mixed(nn.Module):
    """Grouped and depthwise convolutions, a transposed one, a concatenation, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.wide = nn.Conv2d(16, 24, 1)
        self.up = nn.ConvTranspose2d(40, 16, 2, stride=2)
        self.last = nn.Conv2d(16, 32, 3)
        self.head, self.other = nn.Linear(32, 10), nn.Linear(32, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        left = torch.relu(self.grouped(torch.relu(self.first(image))))
        right = torch.relu(self.depthwise(self.wide(left)))
        x = torch.relu(self.last(torch.relu(self.up(torch.cat((left, right), 1)))))
        return self.head(x.mean((2, 3))), self.other(x.amax((2, 3)))


class Recurrent(nn.Module):
    """Convolution, LSTM, linear layers, and a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv2d(1, 16, 3), nn.LSTM(16, 24, batch_first=True)
        self.inner, self.head = nn.Linear(24 + 5, 32), nn.Linear(32, 10)

    def forward(self, image: Tensor, more: Tensor) -> Tensor:
        seen, _ = self.lstm(self.conv(image).mean(2).transpose(1, 2))
        return self.head(torch.relu(self.inner(torch.cat((seen[:, -1], more), 1))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("share", [0.25, 0.9])
@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (conv_net, (X,)),
        (perceptron, (X,)),
        (flattened, (X,)),
        (Mixed, (X,)),
        (Recurrent, (EIGHT, torch.ones(2, 5))),
        (TorchEncoder, WORDS),
    ],
)
def test_removing_channels_is_the_same_as_zeroing_them(
    make: object, inputs: tuple[Tensor, ...], share: float
) -> None:
    whole = make().eval()  # type: ignore[operator]
    cut, zeroed = removed_and_zeroed(whole, inputs, channels, share)
    same(cut, zeroed, inputs)
    assert macs(cut, inputs) < macs(whole, inputs)
    with torch.no_grad(), pytest.raises(AssertionError):
        same(cut, whole, inputs)


def test_groups_heads_and_what_recurrent_layers_read_are_left_alone() -> None:
    assert {units.name for units in channels(Mixed().requires_grad_(True), (X,))} == {
        "depthwise",
        "up",
        "last",
    }
    inputs = (EIGHT, torch.ones(2, 5))
    assert [units.name for units in channels(Recurrent(), inputs)] == ["inner"]
    bert = {units.name for units in channels(Bert().eval(), WORDS)}
    assert not {name for name in bert if "attention.self" in name}
    assert {name for name in bert if "intermediate" in name}


def applied(task: Tiny, **settings: object) -> nn.Module:
    found = technique.get("prune-channels")
    config = found.Config.model_validate({"epochs": 0, "samples": 64} | settings)
    return found.apply(Network(task.network()), context_of(task), config).module


class Wide(Few):
    """With layers that differ in scale, so that a global ranking must not compare raw weights."""

    def network(self) -> nn.Module:
        network = network_of(32)
        with torch.no_grad():
            network[0].weight *= 1e-3  # type: ignore[index, operator]
        return network.eval()


def widths(network: nn.Module) -> list[int]:
    return [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("round_to", [1, 8, 16])
def test_counts_are_rounded_and_the_outputs_stay(scope: str, round_to: int) -> None:
    network = applied(Wide(), scope=scope, ratio=0.45, round_to=round_to)
    assert all(width % round_to == 0 for width in widths(network))
    assert network(EIGHT).shape == (2, 10)
    assert sum(widths(network)) < 32 + 64 + 64
    if scope == "layer":
        exact = [17.6, 35.2, 35.2]
        assert widths(network) == [int(-(-w // round_to)) * round_to for w in exact]


def test_a_global_ranking_keeps_the_least_share_of_every_layer() -> None:
    task = Wide()
    network = applied(task, scope="global", ratio=0.9, least=0.5, round_to=1)
    assert widths(network) == [16, 32, 32]
    assert min(widths(applied(task, scope="global", ratio=0.9, least=0.05, round_to=1))) >= 1
    per_layer = widths(applied(task, scope="layer", ratio=0.5, round_to=1))
    assert widths(applied(task, scope="global", ratio=0.5, round_to=1)) != per_layer


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_target_in_multiplications_is_met_and_not_by_far(share: float, scope: str) -> None:
    whole = macs(Tiny().network(), (EIGHT,))
    network = applied(Few(), macs=share, scope=scope, round_to=1)
    assert 0.8 * share < macs(network, (EIGHT,)) / whole <= share
    with pytest.raises(NotApplicable, match=r"prune-channels: even with all"):
        applied(Few(), macs=0.01)


def test_two_targets_contradict_each_other_and_a_recorded_default_does_not() -> None:
    with pytest.raises(ValidationError, match="macs says how much stays, and ratio would"):
        Pruning(ratio=0.3, macs=0.5)
    Pruning.model_validate(Pruning(macs=0.5).model_dump())


def test_each_criterion_makes_another_choice_and_a_seed_the_same() -> None:
    chosen = {
        criterion: weights_digest(applied(Few(), criterion=criterion))
        for criterion in ("magnitude", "wanda", "apoz", "taylor", "obd", "random")
    }
    assert len(set(chosen.values())) == len(chosen)
    assert chosen["random"] == weights_digest(applied(Few(), criterion="random"))


def test_in_rounds_the_counts_come_down_to_the_same_with_training_in_between() -> None:
    at_once, in_rounds = applied(Few()), applied(Few(), rounds=3)
    assert widths(at_once) == widths(in_rounds) == [8, 16, 16]
    told: list[tuple[float, str]] = []
    found = technique.get("prune-channels")
    context = context_of(Few())
    object.__setattr__(context, "progress", lambda fraction, text: told.append((fraction, text)))
    config = found.Config.model_validate({"epochs": 1, "rounds": 2, "round_to": 1})
    found.apply(Network(Few().network()), context, config)
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_the_lightest_channels_go() -> None:
    network, light = Few().network(), [3, 8, 20, 30]
    with torch.no_grad():
        network[6].weight[light] *= 1e-3  # type: ignore[index, operator]
        network[10].weight[:, light] *= 1e-3  # type: ignore[index, operator]
    units = channels(network.requires_grad_(True), (EIGHT,))
    scores = importance(units, network, context_of(Few()), "magnitude", 1)
    assert set(scores["6"].argsort()[:4].tolist()) == set(light)
    whole = Pruning(ratio=4 / 32, round_to=1)
    gone = choose({"6": scores["6"]}, {"6": 32}, 4 / 32, whole)
    assert gone == {"6": light}


class FixedWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(1, 32, 3), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.outer(self.inner(image).mean((2, 3)) * torch.ones(32))  # type: ignore[no-any-return]


def test_a_network_of_fixed_width_is_refused() -> None:
    class Fixed(Few):
        def network(self) -> nn.Module:
            return FixedWidth()

    with pytest.raises(NotApplicable, match=r"prune-channels: the network fails with fewer"):
        applied(Fixed())


def test_a_criterion_that_says_nothing_about_the_network_is_refused() -> None:
    class Smooth(Few):
        def network(self) -> nn.Module:
            return nn.Sequential(
                nn.Flatten(), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10)
            ).eval()

    with pytest.raises(NotApplicable, match=r"prune-channels: no channels .* \(criterion apoz"):
        applied(Smooth(), criterion="apoz")


def test_what_is_left_runs_on_the_engine(tmp_path: Path) -> None:
    outcomes = build_of(
        "[variants.fp32]\n[variants.thin]\n"
        'steps = [{ technique = "prune-channels", epochs = 0, macs = 0.5 }]',
        tmp_path,
    )
    thin, whole = outcomes["thin"].card, outcomes["fp32"].card
    assert thin is not None and whole is not None, outcomes["thin"].reason
    assert thin.parameters < 0.7 * whole.parameters
