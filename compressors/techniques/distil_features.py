"""distil-features: the student learns what the reference computes on its way to the answer as well.

"hint" (FitNets: Romero et al. 2015, arXiv 1412.6550): a linear map R (a 1x1 convolution, or one
matrix for tokens and vectors), trained along and then thrown away, takes the student's features to
the teacher's,

    mean((R(student) - teacher)^2) / mean(teacher^2)

"attention" (Zagoruyko & Komodakis 2017, arXiv 1612.03928): where each of the two is active, summed
over channels, so no map is needed,

    ||q(student) - q(teacher)||^2   with  q(A) = sum_c A_c^2 / ||sum_c A_c^2||

`feature_weight` times the mean over the pairs of layers is added to the loss of `distil`. Pairs are
named by the recipe, or found: for every spatial size, or number of tokens, that both networks have,
the last layer of each that returns it; where there is none, what goes into the last linear layer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from compressors import distilling
from compressors.distilling import Teacher, Teaching
from compressors.errors import NotApplicable
from compressors.surgery.features import Tap, Traced, captured, matching, traced
from compressors.technique import Context, Network, Technique

_TRACED = 3  # samples; few, and unlike most numbers of tokens


class _Config(Teaching):
    epochs: int = Field(10, ge=1, le=1000, description="passes over the training split")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="at the peak of the one cycle")
    feature_loss: Literal["hint", "attention"] = Field(
        "hint", description="hint: the features, by a learned map; attention: where they are large"
    )
    feature_weight: float = Field(1.0, gt=0, le=1000, description="of the features in the loss")
    student_layers: tuple[str, ...] = Field(
        (), description="dotted names of modules whose outputs learn; none to find pairs"
    )
    teacher_layers: tuple[str, ...] = Field(
        (), description="the reference's modules that teach them, in the same order"
    )

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        if len(self.student_layers) != len(self.teacher_layers):
            raise ValueError(
                f"expected as many teacher_layers as student_layers, {len(self.student_layers)}, "
                f"got {len(self.teacher_layers)}"
            )
        return self


class _DistilFeatures(Technique):
    Config = _Config
    needs = frozenset({"training", "student"})
    summary = "Trains the task's student on the reference's inner features, outputs and labels."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The trained student; the module that came in is given up.

        Raises:
            NotApplicable: the task has no student, a named layer is not there or not reached, no
                pair of layers fits, or `distil` would not apply.
            NotFinite: the loss became NaN.
        """
        student = distilling.student_of(context, "distil-features")
        teacher = Teacher(context, live=True)
        some = context.task.samples("train").batch(slice(0, _TRACED))
        own, given = traced(student, some), traced(teacher.network, some)
        pairs = [
            (_named(own, n, "student_layers"), _named(given, t, "teacher_layers"))
            for n, t in zip(config.student_layers, config.teacher_layers, strict=True)
        ] or matching(own, given)
        hint = config.feature_loss == "hint"
        if not hint and not config.student_layers:
            pairs = [pair for pair in pairs if math.prod(pair[0].places) > 1]
        if not pairs:
            raise NotApplicable(
                "distil-features: student and reference have no layers whose features are of the "
                "same size, and for hint no linear layer at the end"
            )
        maps = nn.ModuleList()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            for one, other in pairs:
                _check(one, other, config.feature_loss)
                maps.append(mapping(one.features, other.features) if hint else nn.Identity())

        with (
            captured(student, [p[0] for p in pairs]) as learnt,
            captured(teacher.network, [p[1] for p in pairs]) as taught,
        ):

            def features() -> Tensor:
                # Both have just run on the batch.
                compare = hint_loss if hint else attention_loss
                parts = [
                    compare(mapped(learnt[i].float()), taught[i].float())
                    for i, mapped in enumerate(maps)
                ]
                return config.feature_weight * torch.stack(parts).mean()

            distilling.learn(
                "distil-features",
                student,
                context,
                config,
                teacher=teacher,
                besides=features,
                together=(maps,) if hint else (),
            )
        return replace(network, module=student)


TECHNIQUE = _DistilFeatures()


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared error as a share of the teacher's mean square."""
    scale = teacher.square().mean().clamp(min=torch.finfo(teacher.dtype).tiny)
    return (student - teacher).square().mean() / scale


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared distance of the attention maps, averaged over the batch."""
    return (attention(student) - attention(teacher)).square().sum(1).mean()


def attention(features: Tensor) -> Tensor:
    """(n, c, h, w) or (n, tokens, c) to (n, places): q of the module's docstring."""
    energy = features.square().sum(1 if features.ndim == 4 else -1).flatten(1)
    return nn.functional.normalize(energy, dim=1)


def mapping(student: Tensor, teacher: Tensor) -> nn.Module:
    """R: from features like `student` to features like `teacher`."""
    if student.ndim == 4:
        return nn.Conv2d(student.shape[1], teacher.shape[1], 1)
    return nn.Linear(student.shape[-1], teacher.shape[-1])


def _named(there: Traced, name: str, key: str) -> Tap:
    if name not in there.taps:
        raise NotApplicable(
            f"distil-features: {key}: expected modules that return (n, c), (n, tokens, c) or "
            f"(n, c, h, w), such as {', '.join(list(there.taps)[-5:]) or 'none here'}, got {name!r}"
        )
    return there.taps[name]


def _check(student: Tap, teacher: Tap, kind: str) -> None:
    if student.features.ndim != teacher.features.ndim or student.places != teacher.places:
        raise NotApplicable(
            f"distil-features: {student.name} and {teacher.name}: expected features of the same "
            f"size, got {tuple(student.features.shape[1:])} and {tuple(teacher.features.shape[1:])}"
        )
    if kind == "attention" and math.prod(student.places) < 2:
        raise NotApplicable(
            f"distil-features: {student.name}: attention is over places or tokens, and it has "
            'one; feature_loss = "hint" takes it'
        )
