"""Tickets: what is gone is gone, and what stays starts where it started."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from compressors import technique
from compressors.errors import NotApplicable
from compressors.surgery.observe import weights_of
from compressors.technique import Context, Network
from compressors.training import Training, train
from tests.compressors.kinds import CONVOLUTIONAL, KINDS, PERCEPTRON, RECURRENT, TRANSFORMER, Kind

TICKET = technique.get("lottery-ticket")


class Watched(Kind):
    """Keeps the network's whole state at every call of the loss, before the step it leads to."""

    def __init__(self, task: Kind) -> None:
        super().__init__(task._make, task._tokens)
        self.module = self.network()
        self.states: list[dict[str, Tensor]] = []

    def loss(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        self.states.append({k: v.clone() for k, v in self.module.state_dict().items()})
        return super().loss(outputs, targets)


def ticket(task: Kind, **settings: Any) -> Watched:
    watched = Watched(task)
    config = TICKET.Config.model_validate({"batch_size": 16, **settings})  # three steps an epoch
    context = Context(watched, task.network(), 0, lambda _fraction, _text: None, {})
    assert TICKET.apply(Network(watched.module), context, config).module is watched.module
    return watched


def statistics(name: str) -> bool:
    """Of batch norm: already moved by the forward pass when the loss is asked."""
    return "running" in name or "num_batches" in name


@pytest.mark.parametrize("start", ["random", "network"])
@pytest.mark.parametrize("rewind_epoch", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rewound_ticket_starts_from_the_stored_weights_times_the_mask(
    kind: str, rewind_epoch: int, start: str
) -> None:
    settings = {"epochs": 2, "rounds": 2, "sparsity": 0.75, "start": start}
    watched = ticket(KINDS[kind], rewind_epoch=rewind_epoch, **settings)
    states, again = watched.states, 3 * (2 - rewind_epoch)
    assert len(states) == 6 + 2 * again
    stored = states[3 * rewind_epoch]
    original = KINDS[kind].network().state_dict()
    same = all(torch.equal(states[0][k], original[k]) for k in weights_of(watched.module))
    assert same == (start == "network")
    gone: dict[str, Tensor] = {}
    for index, share in ((6, 0.5), (6 + again, 0.75)):
        first, zeros, sizes = states[index], 0, 0
        for name, tensor in first.items():
            if name in weights_of(watched.module):
                mask = tensor != 0
                zeros, sizes = zeros + int((~mask).sum()), sizes + mask.numel()
                assert not (mask & gone.get(name, ~mask)).any()
                gone[name] = ~mask
                assert torch.equal(tensor, stored[name] * mask)
            elif not statistics(name):
                assert torch.equal(tensor, stored[name]), name
        assert zeros / sizes == pytest.approx(share, abs=1e-3)
    for name, weight in weights_of(watched.module).items():
        assert torch.equal(weight == 0, gone[name])


def test_norms_statistics_are_rewound_too() -> None:
    watched = ticket(CONVOLUTIONAL, epochs=2, rounds=1)
    # One forward pass after the state that was kept, at both.
    kept, begun = watched.states[3], watched.states[6]
    assert kept["1.num_batches_tracked"] == begun["1.num_batches_tracked"] == 4


def test_rewinding_the_learning_rate_leaves_the_weights_as_trained() -> None:
    watched = ticket(PERCEPTRON, epochs=1, rounds=1, rewind="learning-rate", sparsity=0.5)
    stored, first = watched.states[0], watched.states[3]
    for name in weights_of(watched.module):
        kept = first[name] != 0
        assert not torch.equal(first[name][kept], stored[name][kept])
        # One step after the last that was seen.
        assert (first[name] - watched.states[2][name])[kept].abs().max() < 0.01


def test_training_can_be_taken_up_in_the_middle_of_its_cycle() -> None:
    rates: dict[int, list[float]] = {}
    for first in (0, 2):
        seen: list[float] = []

        def watch(optimizer: torch.optim.Optimizer, *_: object, into: list[float] = seen) -> None:
            into.append(optimizer.param_groups[0]["lr"])

        handle = register_optimizer_step_pre_hook(watch)
        trained = train(
            PERCEPTRON.network(),
            PERCEPTRON,
            Training(epochs=3, batch_size=16),
            seed=0,
            progress=lambda _fraction, _text: None,
            first_epoch=first,
        )
        handle.remove()
        rates[first] = seen
        assert len(trained.scores) == 3 - first and first <= trained.best < 3
    assert len(rates[0]) == 9 and rates[2] == rates[0][6:]


def test_the_share_holds_in_each_layer_or_over_all() -> None:
    def shares(scope: str) -> list[float]:
        weights = weights_of(ticket(PERCEPTRON, epochs=1, rounds=1, scope=scope).module)
        return [float((weight == 0).double().mean()) for weight in weights.values()]

    assert shares("layer") == pytest.approx([0.8] * 3, abs=0.005)
    assert max(shares("global")) - min(shares("global")) > 0.1


def test_refusals_name_what_is_wrong() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.head = nn.Parameter(torch.ones(1)), nn.Linear(576, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1) * self.scale)  # type: ignore[no-any-return]

    with pytest.raises(NotApplicable, match=r"lottery-ticket: the network has scale and no reset"):
        ticket(Kind(Own))
    ticket(Kind(Own), start="network", epochs=1, rounds=1)
    with pytest.raises(ValidationError, match=r"rewind_epoch: expected less than epochs \(2\)"):
        TICKET.Config.model_validate({"epochs": 2, "rewind_epoch": 2})
    assert TICKET.Config.model_validate({"epochs": 1}).rewind_epoch == 0
    assert math.isclose(TICKET.Config.model_validate({}).sparsity, 0.8)


@pytest.mark.parametrize("task", [RECURRENT, TRANSFORMER])
def test_first_weights_follow_the_seed(task: Kind) -> None:
    one, two = (ticket(task, epochs=1, rounds=1).states[0] for _ in range(2))
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name])
