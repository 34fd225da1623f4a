"""distil: a smaller network learns from the reference's outputs and from the labels (Hinton,
Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531).

    loss = soft_weight * T^2 * KL(softmax(teacher / T) || softmax(student / T))
         + (1 - soft_weight) * task.loss(student, targets)

The student is the task's, untrained; the teacher is the reference. `compressors/distilling.py` has
the loss in full: it also teaches tokens, regression and embeddings. A patient teacher that sees the
very same augmented samples as its student teaches best (Beyer et al. 2022, arXiv 2106.05237): where
the task augments, so it is.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from compressors import distilling
from compressors.distilling import Teaching
from compressors.technique import Context, Network, Technique


class _Config(Teaching):
    epochs: int = Field(10, ge=1, le=1000, description="passes over the training split")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="at the peak of the one cycle")


class _Distil(Technique):
    Config = _Config
    needs = frozenset({"training", "student"})
    summary = "Trains the task's smaller student on the reference's outputs and the labels."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The trained student; the module that came in is given up.

        Raises:
            NotApplicable: the task has no student, or its outputs are not of the kind asked for,
                or the student's differ in shape.
            NotFinite: the loss became NaN.
        """
        student = distilling.student_of(context, "distil")
        distilling.learn("distil", student, context, config)
        return replace(network, module=student)


TECHNIQUE = _Distil()
