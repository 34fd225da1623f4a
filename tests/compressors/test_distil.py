"""Distillation: the formula, its gradient, and that it is the reference who teaches."""

from __future__ import annotations

import pytest
import torch

from compressors import technique
from compressors.distilling import soft_loss
from compressors.task import Samples, Split
from compressors.technique import Network
from tests.compressors.few import Few, context_of, short
from tests.tiny_task import Tiny


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_soft_loss_and_its_gradient_follow_the_formula(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(8, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = 3 * torch.randn(8, 10, generator=generator, dtype=torch.float64)
    p = (teacher / temperature).exp() / (teacher / temperature).exp().sum(1, keepdim=True)
    q = (student / temperature).exp() / (student / temperature).exp().sum(1, keepdim=True)
    formula = temperature**2 * (p * (p.log() - q.log())).sum() / 8
    (by_autograd,) = torch.autograd.grad(formula, student, retain_graph=True)
    loss = soft_loss(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(loss, formula)
    torch.testing.assert_close(gradient, by_autograd)
    # Hinton et al. 2015, equation 2, times T^2 and over the batch.
    torch.testing.assert_close(gradient, temperature * (q - p).detach() / 8)


def test_the_teacher_is_asked_once_a_build() -> None:
    context, (found, config) = context_of(Few()), short("distil")
    calls = []
    context.reference.register_forward_hook(lambda *_: calls.append(1))
    found.apply(Network(Few().network()), context, config)
    once = len(calls)
    found.apply(Network(Few().network()), context, config)
    assert len(calls) == once > 0


class WrongLabels(Few):
    def samples(self, split: Split) -> Samples:
        own = Tiny.samples(self, split)
        return own if split != "train" else Samples(own.inputs, (own.targets + 1) % 10)


class Wanted(WrongLabels):
    """Its validation samples have those labels too, so that the epoch that learnt them is kept."""

    def samples(self, split: Split) -> Samples:
        own = Tiny.samples(self, split)
        return Samples(own.inputs, (own.targets + 1) % 10)


@pytest.mark.parametrize(("soft_weight", "right"), [(1.0, True), (0.01, False)])
def test_the_reference_s_answers_and_the_labels_teach_by_their_weight(
    soft_weight: float, right: bool
) -> None:
    """The labels are all wrong: with the soft part alone, the student learns all the same."""
    found = technique.get("distil")
    settings = {"epochs": 8, "learning_rate": 2e-2, "soft_weight": soft_weight, "batch_size": 32}
    task = WrongLabels() if right else Wanted()
    student = found.apply(
        Network(task.network()), context_of(task), found.Config.model_validate(settings)
    ).module
    validation = Few().samples("validation")
    with torch.no_grad():
        answers = student(torch.from_numpy(validation.inputs["image"])).argmax(1).numpy()
    wanted = validation.targets if right else (validation.targets + 1) % 10
    assert (answers == wanted).mean() > 0.7
