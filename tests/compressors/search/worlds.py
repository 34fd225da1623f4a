"""A made-up world to search in: what each candidate costs and loses, as closed formulas."""

from __future__ import annotations

from dataclasses import dataclass

from compressors.search import choose
from compressors.search.choose import Evaluate, Finish, Measure
from compressors.search.facts import Limits
from compressors.search.record import Evaluated, Finding, Measured, Record, Rejected
from compressors.search.space import REFERENCE, Candidate, Shape

_SPEED = {"fp32": 1.0, "bf16": 0.55, "int8": 0.3}
_LOSS = {"fp32": 0.0, "bf16": 0.0, "int8": 0.001}


@dataclass(frozen=True)
class World:
    """`hardness`: the drop that pruning everything would leave after very long training;
    `absent`: families that the network has nothing for."""

    hardness: float = 0.04
    absent: tuple[str, ...] = ()
    student_drop: float = 0.02
    failing: tuple[str, ...] = ()
    """Families whose training comes to nothing."""

    def objective(self, shape: Shape, arithmetic: str) -> float:
        if shape.family == "student":
            return 0.1 * _SPEED[arithmetic]
        kept = 1 - shape.strength
        # A floor: what a call costs whatever it computes.
        return 0.02 + kept**2 * _SPEED[arithmetic]

    def drop(self, candidate: Candidate) -> float:
        loss = _LOSS[candidate.arithmetic]
        if candidate.shape == REFERENCE:
            return loss
        untrained = 1 + 4 / max(candidate.epochs, 0.25)
        if candidate.shape.family == "student":
            return self.student_drop * untrained + loss
        return self.hardness * candidate.shape.strength**3 * untrained + loss

    def find(self, action: Measure | Evaluate) -> Finding:
        if isinstance(action, Measure):
            if action.shape.family in self.absent:
                return Rejected(action.shape, "nothing to act on")
            objective = self.objective(action.shape, action.arithmetic)
            parameters = round(1000 * objective)
            untrained = None if action.shape.family == "student" else action.shape.strength
            return Measured(
                action.shape, action.arithmetic, objective, 0.005, 3.0, parameters, untrained
            )
        candidate = action.candidate
        if candidate.shape.family in self.failing:
            return Rejected(candidate, "the loss became nan", 1.0)
        drop = self.drop(candidate)
        return Evaluated(
            candidate,
            action.engine,
            0.95 - drop,
            drop,
            drop - 0.002,
            drop + 0.002,
            self.objective(candidate.shape, candidate.arithmetic),
            0.005,
            5.0 if action.engine else 20.0 * candidate.epochs,
        )


def limits(max_drop: float = 0.01, budget_s: float = 3600.0) -> Limits:
    return Limits(
        max_drop,
        budget_s,
        ("prune-channels", "low-rank", "student"),
        ("bf16", "int8"),
    )


def search(world: World, how: Limits, record: Record | None = None) -> tuple[Record, Finish]:
    """Search to the end, from `record` on."""
    record = record or Record()
    for _ in range(500):
        action = choose.next_action(record, how)
        if isinstance(action, Finish):
            return record, action
        record = record + world.find(action)
    raise AssertionError("the search does not end")
