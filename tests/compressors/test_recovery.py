"""fine-tune, self-distil and train-student: what they learn from, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressors import technique, training
from compressors.errors import NotApplicable
from compressors.task import Samples, Split
from compressors.technique import Network
from compressors.verify import weights_digest
from tests.compressors.few import Few, context_of

RECOVERING = ("fine-tune", "self-distil")


def trained(name: str, module: nn.Module, task: Few, **settings: object) -> nn.Module:
    found = technique.get(name)
    config = found.Config.model_validate({"epochs": 1, "batch_size": 25, **settings})
    return found.apply(Network(module), context_of(task), config).module


@pytest.mark.parametrize("name", RECOVERING)
def test_pruned_weights_stay_zero_and_the_others_change(name: str) -> None:
    network = Few().network()
    weight = network[3].weight  # type: ignore[index]
    gone = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        weight[gone] = 0
    before = weight.detach().clone()
    after = trained(name, network, Few())[3].weight  # type: ignore[index]
    assert (after[gone] == 0).all()
    assert (after[~gone] != before[~gone]).float().mean() > 0.99


@pytest.mark.parametrize("name", RECOVERING)
def test_a_network_frozen_for_inference_trains_and_what_is_frozen_in_part_stays(name: str) -> None:
    whole = Few().network().requires_grad_(False)
    before = weights_digest(whole)
    assert weights_digest(trained(name, whole, Few())) != before
    part = Few().network()
    part[0].requires_grad_(False)  # type: ignore[index, operator]
    after = trained(name, part, Few())
    fresh = Few().network()
    assert torch.equal(after[0].weight, fresh[0].weight)  # type: ignore[index]
    assert not torch.equal(after[3].weight, fresh[3].weight)  # type: ignore[index]


@pytest.mark.parametrize("name", RECOVERING)
def test_a_network_without_weights_is_refused(name: str) -> None:
    with pytest.raises(NotApplicable, match=f"{name}: the network has no weights"):
        trained(name, nn.Sequential(nn.Flatten()), Few())


class WrongLabels(Few):
    def samples(self, split: Split) -> Samples:
        own = super().samples(split)
        return own if split != "train" else Samples(own.inputs, (own.targets + 1) % 10)


class Blind(WrongLabels):
    """Every epoch seems better than the one before, so that the last is kept."""

    def __init__(self) -> None:
        self.asked = 0

    def score(self, _: object, targets: np.ndarray) -> np.ndarray:
        self.asked += 1
        return np.full(len(targets), self.asked / 1000)


def test_self_distillation_listens_to_the_reference_and_fine_tuning_to_the_labels() -> None:
    validation, how = Few().samples("validation"), {"epochs": 3, "learning_rate": 0.01}

    def score(module: nn.Module) -> float:
        return training.validation_score(module, Few(), validation)

    before = Few().network()
    taught = score(trained("self-distil", Few().network(), Blind(), soft_weight=1.0, **how))
    assert taught > score(before) - 0.1
    assert score(trained("fine-tune", Few().network(), Blind(), **how)) < taught - 0.3


def test_a_student_trained_on_labels_starts_as_the_distilled_one_and_asks_nobody() -> None:
    task, starts = Few(), []

    class Watched(Few):
        def student(self) -> nn.Module:
            student = super().student()
            starts.append(weights_digest(student))
            return student

    for name in ("train-student", "distil"):
        found, context, asked = technique.get(name), context_of(task), []
        context.reference.register_forward_hook(lambda *_, asked=asked: asked.append(1))
        context = type(context)(Watched(), context.reference, 3, context.progress, {})
        config = found.Config.model_validate({"epochs": 1})
        found.apply(Network(task.network()), context, config)
        assert bool(asked) == (name == "distil")
    assert starts[0] == starts[1]


def test_a_student_learns_from_the_labels() -> None:
    module = trained("train-student", nn.Identity(), Few(), epochs=6, learning_rate=0.02)
    assert training.validation_score(module, Few(), Few().samples("validation")) > 0.6
