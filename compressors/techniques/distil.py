"""distil: a smaller network learns from the reference's outputs and from the labels (Hinton,
Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531).

    loss = soft_weight * T^2 * KL(softmax(teacher / T) || softmax(student / T))
         + (1 - soft_weight) * task.loss(student, targets)

T^2 keeps the soft part's gradients as large as the hard part's at any temperature T. The student is
the task's, untrained; the teacher is the reference, whose logits are computed once per build.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors import training
from compressors.errors import NotApplicable
from compressors.technique import Context, Network, Technique
from compressors.training import Training

_TEACHING = 0.1  # of the progress: the teacher's share of the time


class _Config(Training):
    epochs: int = Field(10, ge=1, le=1000, description="passes over the training split")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="at the peak of the one cycle")
    temperature: float = Field(
        4.0, ge=1, le=100, description="how far the teacher's probabilities are smoothed"
    )
    soft_weight: float = Field(
        0.9, gt=0, le=1, description="share of the teacher in the loss; the labels have the rest"
    )


class _Distil(Technique):
    Config = _Config
    needs = frozenset({"training", "student"})
    summary = "Trains the task's smaller student on the reference's outputs and the labels."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The trained student; the module that came in is given up.

        Raises:
            NotApplicable: the task has no student, or its first output is not logits (n, classes)
                or the student's differ in shape.
            NotFinite: the loss became NaN.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)  # of its first weights
            student = context.task.student()
        if student is None:
            raise NotApplicable("distil: the task's student() is None")
        teacher = _teacher_logits(context)
        if teacher.ndim != 2:
            raise NotApplicable(
                "distil: expected the reference's first output to be logits (n, classes), "
                f"got (n, {', '.join(map(str, teacher.shape[1:]))})"
            )
        train = context.task.samples("train")
        own = training.outputs_of(student, train.batch(slice(0, 2)))[0]
        if own.shape[1:] != teacher.shape[1:]:
            raise NotApplicable(
                f"distil: the student's first output has shape {tuple(own.shape[1:])} per sample, "
                f"the reference's {tuple(teacher.shape[1:])}"
            )

        def loss(outputs: tuple[Tensor, ...], targets: Tensor, rows: Tensor) -> Tensor:
            soft = soft_loss(outputs[0], teacher[rows], config.temperature)
            hard = context.task.loss(outputs, targets)
            return config.soft_weight * soft + (1 - config.soft_weight) * hard

        def told(fraction: float, text: str) -> None:
            context.progress(_TEACHING + (1 - _TEACHING) * fraction, text)

        how = Training(**config.model_dump(include=set(Training.model_fields)))
        training.train(student, context.task, how, seed=context.seed, progress=told, loss=loss)
        return replace(network, module=student)


TECHNIQUE = _Distil()


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of logits (n, classes) at `temperature`, averaged over n."""
    return temperature**2 * nn.functional.kl_div(
        torch.log_softmax(student / temperature, dim=-1),
        torch.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def _teacher_logits(context: Context) -> Tensor:
    """(n, classes) of the reference on the training split, from the cache where it is there."""
    key = "distil: the reference's first output on train"
    if key not in context.cache:
        context.progress(0.0, "the reference answers the training samples")
        train = context.task.samples("train")
        context.cache[key] = training.outputs_of(context.reference, train)[0]
    logits = context.cache[key]
    assert isinstance(logits, Tensor)
    return logits
