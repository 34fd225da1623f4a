"""Two students that teach each other."""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compressors import technique, training
from compressors.task import Array
from compressors.technique import Network
from compressors.techniques.distil_mutual import Pair
from compressors.verify import weights_digest
from tests.compressors.few import Few, context_of
from tests.compressors.taught import Joined


class Watched(Few):
    """Keeps the students that were made, and their first weights."""

    def __init__(self) -> None:
        self.made: list[nn.Module] = []
        self.first: list[nn.Module] = []

    def student(self) -> nn.Module:
        self.made.append(super().student())
        self.first.append(copy.deepcopy(self.made[-1]))
        return self.made[-1]


def test_both_start_apart_both_learn_and_the_better_is_kept() -> None:
    task, found = Watched(), technique.get("distil-mutual")
    config = found.Config.model_validate({"epochs": 3, "batch_size": 25, "learning_rate": 0.02})
    network = found.apply(Network(task.network()), context_of(task), config)
    assert len(task.made) == 2
    assert len({weights_digest(module) for module in (*task.first, *task.made)}) == 4
    validation = task.samples("validation")
    scores = [training.validation_score(module, task, validation) for module in task.made]
    fresh = [training.validation_score(module, task, validation) for module in task.first]
    assert min(scores) > max(fresh)
    assert network.module is task.made[scores.index(max(scores))]


def test_each_learns_from_the_other() -> None:
    """The more they listen to each other, the more they agree."""

    def apart(peer_weight: float) -> float:
        task, found = Watched(), technique.get("distil-mutual")
        config = found.Config.model_validate(
            {"epochs": 3, "batch_size": 25, "learning_rate": 0.02, "peer_weight": peer_weight}
        )
        found.apply(Network(task.network()), context_of(task), config)
        samples = task.samples("train")
        one, other = (training.outputs_of(m, samples)[0].softmax(1) for m in task.made)
        return float((one - other).abs().sum(1).mean())

    assert apart(20.0) < 0.7 * apart(1e-6)


def test_both_are_taught_by_their_peer() -> None:
    """Where labels say nothing, what changes a bias is the other student."""

    class Unlabelled(Watched):
        def loss(self, outputs: tuple[Tensor, ...], _targets: Tensor) -> Tensor:
            return 0 * outputs[0].sum()

    task, found = Unlabelled(), technique.get("distil-mutual")
    config = found.Config.model_validate({"epochs": 1, "batch_size": 25})
    found.apply(Network(task.network()), context_of(task), config)
    for first, made in zip(task.first, task.made, strict=True):
        assert not torch.equal(first[-1].bias, made[-1].bias)  # type: ignore[index]


def test_the_epoch_at_which_the_better_of_the_two_was_best_is_kept() -> None:
    class Scripted(Watched):
        scores = iter((0.9, 0.1, 0.5, 0.5, 1.0, 0.0))  # one and other, by epoch; then once more

        def score(self, _outputs: dict[str, Array], targets: Array) -> Array:
            self.seen.append(weights_digest(self.made[0]))
            return np.full(len(targets), next(self.scores))

        seen: ClassVar[list[str]] = []

    task, found = Scripted(), technique.get("distil-mutual")
    config = found.Config.model_validate({"epochs": 2})
    kept = found.apply(Network(task.network()), context_of(task), config).module
    assert weights_digest(kept) == task.seen[0] != task.seen[2]


def test_a_pair_returns_all_outputs_of_the_one_then_of_the_other() -> None:
    one, other = Joined(6).eval(), Joined(6).eval()
    inputs = torch.randn(3, 4), torch.randn(3, 3)
    for got, expected in zip(
        Pair(one, other)(*inputs), (*one(*inputs), *other(*inputs)), strict=True
    ):
        assert torch.equal(got, expected)
