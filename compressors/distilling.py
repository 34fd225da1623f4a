"""What the techniques of distillation share: the teacher, the student, and the loss between them.

    loss = soft_weight * taught + (1 - soft_weight) * task.loss(student, targets)

Where outputs are logits, `taught` is T^2 KL(softmax(teacher / T) || softmax(student / T)) (Hinton,
Vinyals & Dean 2015, arXiv 1503.02531), per token where they are (n, tokens, classes). T^2 keeps its
gradients as large as the labels' at any temperature T. Where they are values, as in regression and
embeddings, it is the squared distance to the teacher (Ba & Caruana 2014, arXiv 1312.6184) as a
share of the teacher's own variance, so that 1 is what a constant answer costs, in any unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from compressors import training
from compressors.errors import NotApplicable
from compressors.task import Samples, Task
from compressors.technique import Context
from compressors.training import Loss, Training

Outputs = tuple[Tensor, ...]

_LOOKED_AT = 256  # training samples that show what the outputs are
_HELD_BYTES = 2**29  # of the teacher's outputs; beyond it is asked anew at every step


class Comparing(Training):
    """How a network's outputs are compared with another's."""

    temperature: float = Field(
        4.0, ge=1, le=100, description="how far the teacher's probabilities are smoothed"
    )
    kind: Literal["auto", "logits", "values"] = Field(
        "auto",
        description="what the outputs are; auto: logits where targets are class numbers and the "
        "task has labels or calls the output logits",
    )
    outputs: tuple[str, ...] = Field(
        (), description="names of the outputs that are taught; none for the first"
    )


class Teaching(Comparing):
    """The settings of a technique with a teacher."""

    soft_weight: float = Field(
        0.9, gt=0, le=1, description="share of the teacher in the loss; the labels have the rest"
    )


def soft_loss(
    student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None
) -> Tensor:
    """T^2 KL(teacher || student) of logits (n, ..., classes) at `temperature`, averaged over the
    distributions, of which `counted` (n, ...) says which count."""
    divergence = nn.functional.kl_div(
        torch.log_softmax(student / temperature, dim=-1),
        torch.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    if counted is None:
        return temperature**2 * divergence.mean()
    return temperature**2 * (divergence * counted).sum() / counted.sum().clamp(min=1)


def value_loss(student: Tensor, teacher: Tensor, variance: float) -> Tensor:
    """The squared distance of values (n, ...), averaged over n, as a share of `variance`."""
    return (student - teacher).square().sum() / (len(teacher) * variance)


def blended(taught: Tensor, labelled: Tensor, soft_weight: float) -> Tensor:
    return soft_weight * taught + (1 - soft_weight) * labelled


class Lesson:
    """How outputs are compared, settled from what the reference returns for some samples.

    Raises:
        NotApplicable: an output that should be taught is not there, is not of floats, or is not
            of the kind that was asked for.
    """

    def __init__(self, technique: str, context: Context, config: Comparing) -> None:
        task, self._technique, self._temperature = context.task, technique, config.temperature
        self._looked = task.samples("train").batch(slice(0, _LOOKED_AT))
        outputs = _looked_at(context, self._looked)
        self._shapes = {
            name: tuple(output.shape[1:])
            for name, output in zip(task.outputs, outputs, strict=True)
        }
        self._taught = []
        self._logits: dict[int, bool] = {}
        self._variance: dict[int, float] = {}
        for name in config.outputs or task.outputs[:1]:
            if name not in task.outputs:
                raise NotApplicable(
                    f"{technique}: outputs: expected some of {', '.join(task.outputs)}, got {name}"
                )
            index = task.outputs.index(name)
            output = outputs[index]
            if not output.is_floating_point():
                raise NotApplicable(f"{technique}: output {name!r} is {output.dtype}, not floats")
            logits = config.kind == "logits" or (
                config.kind == "auto" and _are_logits(task, name, output, self._looked)
            )
            if logits and (output.ndim < 2 or output.shape[-1] < 2):
                raise NotApplicable(
                    f"{technique}: expected the reference's output {name!r} to be logits "
                    f"(n, ..., classes), got {('n', *self._shapes[name])}"
                )
            self._taught.append(name)
            self._logits[index] = logits
            # A reference that always returns the same has no unit of its own.
            self._variance[index] = float(output.var(0, correction=0).sum()) or 1.0

    def check(self, student: nn.Module) -> None:
        """Raises NotApplicable where the student's outputs differ in number or shape."""
        outputs = training.outputs_of(student, self._looked.batch(slice(0, 2)))
        if len(outputs) != len(self._shapes):
            raise NotApplicable(
                f"{self._technique}: the student has {len(outputs)} outputs, "
                f"the reference {len(self._shapes)}"
            )
        own = {n: tuple(o.shape[1:]) for n, o in zip(self._shapes, outputs, strict=True)}
        for name in self._taught:
            if own[name] != self._shapes[name]:
                raise NotApplicable(
                    f"{self._technique}: the student's output {name!r} has shape {own[name]} per "
                    f"sample, the reference's {self._shapes[name]}"
                )

    def loss(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        """`taught`, a scalar, averaged over the outputs; no gradient goes to the teacher."""
        parts = []
        for index, logits in self._logits.items():
            own, given = student[index], teacher[index].detach()
            if logits:
                # Tokens without a label (-100 is usual) are padding.
                counted = targets >= 0 if targets.shape == own.shape[:-1] else None
                parts.append(soft_loss(own, given, self._temperature, counted))
            else:
                parts.append(value_loss(own, given, self._variance[index]))
        return torch.stack(parts).mean()


class Teacher:
    """The reference, asked for the batches that training draws.

    Where they are the split's own, its outputs are computed once a build; where they are drawn
    anew every epoch, or `live`, at every step, with the arithmetic of training.
    """

    def __init__(self, context: Context, live: bool = False) -> None:
        self._context, self._live = context, live
        self._split = self._drawn = context.task.samples("train")
        self._held: Outputs | None = None
        self.network = training.in_training_layout(context.reference, self._split)

    def draw(self, epoch: int) -> Samples:
        """For `train`'s `epoch_samples`."""
        self._drawn = self._context.task.training_samples(epoch)
        fixed = not self._live and _same(self._drawn, self._split)
        self._held = self._all() if fixed else None
        return self._drawn

    def outputs(self, rows: Tensor) -> Outputs:
        """Every output for the rows (n,) of the samples drawn last."""
        if self._held is not None:
            return tuple(output[rows] for output in self._held)
        with torch.no_grad():
            return training.forward(self.network, self._drawn.batch(rows.numpy()))

    def _all(self) -> Outputs | None:
        key, cache = "distilling: the reference's outputs on train", self._context.cache
        if key not in cache:
            some = _looked_at(self._context, self._split.batch(slice(0, _LOOKED_AT)))
            each = sum(output.nbytes for output in some) / len(some[0])
            if each * len(self._split) > _HELD_BYTES:
                return None
            self._context.progress(0.0, "the reference answers the training samples")
            cache[key] = training.outputs_of(self.network, self._split)
        return cast(Outputs, cache[key])


def student_of(context: Context, technique: str, seed: int | None = None) -> nn.Module:
    """The task's student with first weights from `seed`, the context's where it is None.

    Raises:
        NotApplicable: the task has none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed if seed is None else seed)
        student = context.task.student()
    if student is None:
        raise NotApplicable(f"{technique}: the task's student() is None")
    return student


def learn(
    technique: str,
    student: nn.Module,
    context: Context,
    config: Teaching,
    *,
    teacher: Teacher | None = None,
    besides: Callable[[], Tensor] | None = None,
    together: tuple[nn.Module, ...] = (),
    after_step: Callable[[], None] | None = None,
) -> None:
    """Train `student` in place on the reference's outputs and the labels.

    Args:
        besides: what else the loss adds, after student and teacher have run on the batch.

    Raises:
        NotApplicable: see `Lesson`.
        NotFinite: the loss became NaN.
    """
    lesson = Lesson(technique, context, config)
    lesson.check(student)
    asked = teacher or Teacher(context)

    def loss(outputs: Outputs, targets: Tensor, rows: Tensor) -> Tensor:
        taught = lesson.loss(outputs, asked.outputs(rows), targets)
        if config.soft_weight < 1:
            taught = blended(taught, context.task.loss(outputs, targets), config.soft_weight)
        return taught if besides is None else taught + besides()

    criterion: Loss = loss
    training.train(
        student,
        context.task,
        Training(**config.model_dump(include=set(Training.model_fields))),
        seed=context.seed,
        progress=context.progress,
        loss=criterion,
        epoch_samples=asked.draw,
        after_step=after_step,
        together=together,
    )


def _looked_at(context: Context, samples: Samples) -> Outputs:
    key = "distilling: the reference's outputs on the first of train"
    if key not in context.cache:
        context.cache[key] = training.outputs_of(context.reference, samples)
    return cast(Outputs, context.cache[key])


def _are_logits(task: Task, name: str, output: Tensor, samples: Samples) -> bool:
    numbers = samples.targets.dtype.kind in "iu"
    one_each = samples.targets.shape == tuple(output.shape[:-1]) and output.shape[-1] > 1
    return numbers and one_each and (task.labels is not None or name == "logits")


def _same(one: Samples, other: Samples) -> bool:
    """Whether the inputs are equal; a copy is as good as the split itself."""
    return one is other or (
        len(one) == len(other)
        and all(np.array_equal(array, other.inputs[name]) for name, array in one.inputs.items())
    )
