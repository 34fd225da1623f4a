"""What distillation shares: the losses, what is compared with what, and the teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressors import technique, training
from compressors.distilling import Comparing, Lesson, Teacher, blended, soft_loss, value_loss
from compressors.errors import NotApplicable
from compressors.task import Samples, Task
from compressors.technique import Context, Network
from compressors.verify import weights_digest
from tests.compressors.few import Few
from tests.compressors.taught import TASKS, Number, Tokens, Vectors

TRAINING = (
    "distil",
    "distil-features",
    "distil-mutual",
    "fine-tune",
    "self-distil",
    "train-student",
)


def context_of(task: Task) -> Context:
    return Context(task, task.network(), 0, lambda _fraction, _text: None, {})


def lesson_of(task: Task, **settings: object) -> Lesson:
    return Lesson("here", context_of(task), Comparing.model_validate(settings))


def test_tokens_are_averaged_over_those_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    student.requires_grad_(True)
    counted = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    loss = soft_loss(student, teacher, 2.0, counted)
    by_token = [
        soft_loss(student[i, j][None], teacher[i, j][None], 2.0)
        for i, j in counted.nonzero().tolist()
    ]
    torch.testing.assert_close(loss, torch.stack(by_token).mean())
    (gradient,) = torch.autograd.grad(loss, student)
    assert (gradient[~counted] == 0).all() and (gradient[counted] != 0).any(-1).all()


def test_values_cost_nothing_where_equal_and_one_where_the_answer_is_always_the_mean() -> None:
    teacher = 7 + 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    variance = float(teacher.var(0, correction=0).sum())
    assert value_loss(teacher, teacher, variance) == 0
    constant = teacher.mean(0).expand(50, 4)
    torch.testing.assert_close(value_loss(constant, teacher, variance), torch.tensor(1.0))


def test_the_share_of_the_teacher_goes_from_the_labels_alone_to_the_teacher_alone() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    for share, expected in ((0.0, 3.0), (1.0, 4.0), (0.25, 3.25)):
        (gradient,) = torch.autograd.grad(blended(x**2, 3 * x, share), x)
        assert gradient == expected


@pytest.mark.parametrize(
    ("task", "logits"), [(Few, True), (Tokens, True), (Vectors, False), (Number, False)]
)
def test_what_the_outputs_are_is_found(task: type[Task], logits: bool) -> None:
    lesson, samples = lesson_of(task()), task().samples("train")
    teacher = training.outputs_of(task().network(), samples)
    # A distribution does not change when all its logits move; a value does.
    moved = tuple(output + 1 for output in teacher)
    loss = lesson.loss(moved, teacher, torch.from_numpy(samples.targets))
    assert (loss < 1e-6) == logits


def test_the_temperature_asked_for_is_the_loss_s() -> None:
    generator = torch.Generator().manual_seed(0)
    own, teacher = (x.requires_grad_() for x in torch.randn(2, 6, 10, generator=generator))
    for temperature in (1.0, 3.0):
        loss = lesson_of(Few(), temperature=temperature).loss((own,), (teacher,), torch.arange(6))
        torch.testing.assert_close(loss, soft_loss(own, teacher, temperature))
    loss.backward()  # type: ignore[no-untyped-call]
    assert own.grad is not None and teacher.grad is None  # who teaches does not learn from it


def test_padding_teaches_nothing() -> None:
    samples = Tokens().samples("train")
    targets = torch.from_numpy(samples.targets)
    teacher = training.outputs_of(Tokens().network(), samples)[0]
    other = teacher.clone()
    other[targets < 0] *= -5
    lesson = lesson_of(Tokens())
    assert lesson.loss((other,), (teacher,), targets) < 1e-6
    other[targets >= 0] *= -5
    assert lesson.loss((other,), (teacher,), targets) > 1e-3


def test_the_outputs_that_are_named_are_taught() -> None:
    samples = Vectors().samples("train")
    teacher = training.outputs_of(Vectors().network(), samples)
    targets = torch.from_numpy(samples.targets)
    wrong = (teacher[0], -teacher[1])
    assert lesson_of(Vectors()).loss(wrong, teacher, targets) == 0
    assert lesson_of(Vectors(), outputs=["embedding", "length"]).loss(wrong, teacher, targets) > 1


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(NotApplicable, match="here: outputs: expected some of logits, got odds"):
        lesson_of(Few(), outputs=["odds"])
    with pytest.raises(NotApplicable, match=r"here: .*'logits' to be logits \(n, ..., classes\)"):
        lesson_of(Number(), kind="logits")
    with pytest.raises(NotApplicable, match=r"student's output 'logits' has shape \(3,\)"):
        lesson_of(Few()).check(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    with pytest.raises(NotApplicable, match="the student has 1 outputs, the reference 2"):
        lesson_of(Vectors()).check(nn.Bilinear(4, 3, 5))


class Shaken(Few):
    """Other noise at every epoch."""

    def training_samples(self, epoch: int) -> Samples:
        own = self.samples("train")
        noise = np.random.default_rng(epoch).standard_normal((len(own), 1, 8, 8), dtype=np.float32)
        return Samples({"image": own.inputs["image"] + noise / 2}, own.targets)


@pytest.mark.parametrize("task", [Few(), Shaken()])
def test_the_teacher_answers_for_the_samples_that_were_drawn(task: Few) -> None:
    context, rows = context_of(task), torch.tensor([5, 0, 199])
    before = weights_digest(context.reference)
    teacher = Teacher(context)
    for epoch in range(2):
        drawn, own = teacher.draw(epoch), task.training_samples(epoch)
        assert np.array_equal(drawn.inputs["image"], own.inputs["image"])
        (answers,) = teacher.outputs(rows)
        (expected,) = training.outputs_of(task.network(), drawn.batch(rows.numpy()))
        assert not answers.requires_grad
        # bf16 sums differ with the size of the batch.
        torch.testing.assert_close(answers, expected, rtol=0.05, atol=0.1)
    assert ("distilling: the reference's outputs on train" in context.cache) == (type(task) is Few)
    assert weights_digest(context.reference) == before
    assert all(parameter.grad is None for parameter in context.reference.parameters())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", TRAINING)
def test_recurrent_networks_several_inputs_and_values_train(name: str, task: type[Task]) -> None:
    found, context = technique.get(name), context_of(task())
    before = weights_digest(context.reference)
    config = found.Config.model_validate({"epochs": 2, "batch_size": 32})
    module = found.apply(Network(task().network()), context, config).module
    validation = task().samples("validation")
    got = training.outputs_of(module, validation)
    expected = training.outputs_of(context.reference, validation)
    assert [o.shape for o in got] == [o.shape for o in expected]
    assert weights_digest(module) != before == weights_digest(context.reference)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


@pytest.mark.parametrize("task", TASKS)
def test_a_student_learns_the_reference_s_values_without_labels(task: type[Task]) -> None:
    class Unlabelled(task):  # type: ignore[misc, valid-type]
        def loss(self, *_: object) -> Tensor:
            raise AssertionError("the labels are out of bounds")

        def score(self, outputs: dict[str, np.ndarray], _: np.ndarray) -> np.ndarray:
            own = training.outputs_of(self.network(), self.samples("validation"))[0].numpy()
            error = np.square(outputs[self.outputs[0]] - own).reshape(len(own), -1).mean(1)
            return np.exp(-error).astype(np.float64)

    tried, found = Unlabelled(), technique.get("distil")
    settings = {"epochs": 40, "learning_rate": 0.02, "soft_weight": 1.0, "batch_size": 32}
    module = found.apply(
        Network(tried.network()), context_of(tried), found.Config.model_validate(settings)
    ).module
    validation = tried.samples("validation")
    torch.manual_seed(0)
    fresh = training.validation_score(tried.student(), tried, validation)
    assert 1 - training.validation_score(module, tried, validation) < 0.5 * (1 - fresh)
