"""distil-mutual: two students of the task, started apart, learn online from the labels and from
each other (Zhang et al. 2018, "Deep Mutual Learning", arXiv 1706.00384). No reference is asked.

    loss of one = task.loss(one, targets) + peer_weight * taught(one by the other)

and likewise for the other; `taught` is that of `compressors/distilling.py`, at temperature 1 as in
the paper, and sends no gradient to who teaches, which the reference never does. The better of the
two on validation, at its best epoch, is kept.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from compressors import distilling, training
from compressors.distilling import Comparing, Lesson, Outputs
from compressors.task import Array, Samples, Split, Task
from compressors.technique import Context, Network, Technique
from compressors.training import Training


class _Config(Comparing):
    epochs: int = Field(10, ge=1, le=1000, description="passes over the training split")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="at the peak of the one cycle")
    temperature: float = Field(
        1.0, ge=1, le=100, description="how far the peer's probabilities are smoothed"
    )
    peer_weight: float = Field(
        1.0, gt=0, le=100, description="of what the peer teaches, where the labels weigh 1"
    )


class _DistilMutual(Technique):
    Config = _Config
    needs = frozenset({"training", "student"})
    summary = "Trains two students on the labels and on each other's outputs; keeps the better."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The better of the two students; the module that came in is given up.

        Raises:
            NotApplicable: the task has no student, or its outputs are not of the kind asked for.
            NotFinite: the loss became NaN.
        """
        lesson = Lesson("distil-mutual", context, config)
        # Far from the seeds that other techniques give a student, which are small numbers.
        seeds = np.random.SeedSequence(context.seed).generate_state(2)
        students = [distilling.student_of(context, "distil-mutual", int(seed)) for seed in seeds]
        lesson.check(students[0])
        both, task = Pair(*students), _Both(context.task)

        def loss(outputs: Outputs, targets: Tensor, _rows: Tensor) -> Tensor:
            one, other = task.halves(outputs)
            labelled = context.task.loss(one, targets) + context.task.loss(other, targets)
            taught = lesson.loss(one, other, targets) + lesson.loss(other, one, targets)
            return labelled + config.peer_weight * taught

        training.train(
            both,
            task,
            Training(**config.model_dump(include=set(Training.model_fields))),
            seed=context.seed,
            progress=context.progress,
            loss=loss,
        )
        validation = context.task.samples("validation")
        scores = [training.validation_score(s, context.task, validation) for s in students]
        return replace(network, module=students[int(np.argmax(scores))])


TECHNIQUE = _DistilMutual()


class Pair(nn.Module):
    """Two networks as one: all outputs of the first, then all of the second."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, *inputs: Tensor) -> Outputs:
        returned = (self.one(*inputs), self.other(*inputs))
        return tuple(
            output for part in returned for output in (part if _several(part) else (part,))
        )


class _Both(Task):
    """The task for a pair: it scores as its better half, so that training keeps the epoch at
    which that was best."""

    def __init__(self, task: Task) -> None:
        self.name, self._task = task.name, task
        self.outputs = tuple(f"{half} {name}" for half in ("one", "other") for name in task.outputs)

    def network(self) -> nn.Module:
        return self._task.network()

    def samples(self, split: Split) -> Samples:
        return self._task.samples(split)

    def training_samples(self, epoch: int) -> Samples:
        return self._task.training_samples(epoch)

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        names = self._task.outputs
        scores = [
            self._task.score({name: outputs[f"{half} {name}"] for name in names}, targets)
            for half in ("one", "other")
        ]
        return max(scores, key=lambda score: float(np.mean(score)))

    def halves(self, outputs: Outputs) -> tuple[Outputs, Outputs]:
        count = len(self._task.outputs)
        return outputs[:count], outputs[count:]


def _several(returned: object) -> bool:
    return isinstance(returned, tuple | list)
