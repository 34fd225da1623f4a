"""train-student: the task's smaller student, trained on the labels alone, by `task.loss`.

It is what distillation is to be compared with, and the "small from the start" half of "train big,
then compress" (Li et al. 2020, arXiv 2002.11794; Liu et al. 2019, "Rethinking the value of network
pruning", arXiv 1810.05270, found that it can be as good). Its settings are `distil`'s, and a seed
gives both the same first weights and the same order of samples.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from compressors import distilling, training
from compressors.technique import Context, Network, Technique
from compressors.training import Training


class _Config(Training):
    epochs: int = Field(10, ge=1, le=1000, description="passes over the training split")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="at the peak of the one cycle")


class _TrainStudent(Technique):
    Config = _Config
    needs = frozenset({"training", "student"})
    summary = "Trains the task's smaller student on the labels alone."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The trained student; the module that came in is given up.

        Raises:
            NotApplicable: the task has no student.
            NotFinite: the loss became NaN.
        """
        student = distilling.student_of(context, "train-student")
        training.train(student, context.task, config, seed=context.seed, progress=context.progress)
        return replace(network, module=student)


TECHNIQUE = _TrainStudent()
