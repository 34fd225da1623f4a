"""What a search chooses from: shapes, training, arithmetic. Pure.

A candidate is a shape (how much of what is taken away), trained for some epochs by the reference's
outputs, and executed in some arithmetic. Its latency and size follow from shape and arithmetic
alone: no training is needed to know them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Steps = tuple[dict[str, Any], ...]
"""Steps as a recipe file writes them."""


@dataclass(frozen=True, order=True)
class Shape:
    """A family of changes and how strong the change is, from 0 (nothing) to below 1."""

    family: str
    strength: float = 0.0

    def __str__(self) -> str:
        return self.family if not self.strength else f"{self.family} {self.strength:g}"


@dataclass(frozen=True)
class Candidate:
    """A recipe: see the module's docstring."""

    shape: Shape
    epochs: int
    arithmetic: str

    @property
    def steps(self) -> Steps:
        """The recipe's steps; none for the reference."""
        family = FAMILIES[self.shape.family]
        change = family.change(self.shape.strength)
        found = change + ARITHMETIC[self.arithmetic]
        if self.epochs and change:
            taught = {"technique": "self-distil", "epochs": self.epochs}
            found = (*change, taught, *ARITHMETIC[self.arithmetic])
        if self.epochs and family.student:
            found = ({"technique": "distil", "epochs": self.epochs}, *found)
        return found

    @property
    def name(self) -> str:
        """As a variant's name: letters, digits, '.' and '-'."""
        parts = [self.shape.family] if self.shape != REFERENCE else []
        if self.shape.strength:
            parts.append(f"{self.shape.strength:g}")
        if self.arithmetic != "fp32" or not parts:
            parts.append(self.arithmetic)
        return "-".join(parts)


@dataclass(frozen=True)
class Family:
    """Changes of one kind.

    Attributes:
        strengths: where to look first, weakest first; () for a change that has no strength.
        change: the steps that make the shape, which train nothing.
        student: whether it is the task's student that is changed, taught before, and not the
            reference.
    """

    strengths: tuple[float, ...]
    change: Callable[[float], Steps]
    student: bool = False


def _pruned(*what: str) -> Callable[[float], Steps]:
    return lambda s: tuple({"technique": f"prune-{w}", "ratio": s, "epochs": 0} for w in what)


FAMILIES: dict[str, Family] = {
    "reference": Family((), lambda _: ()),
    "prune-channels": Family((0.25, 0.5, 0.75), _pruned("channels")),
    "prune-neurons": Family((0.25, 0.5, 0.75), _pruned("neurons")),
    "prune-heads": Family((0.25, 0.5), _pruned("heads")),
    "prune-transformer": Family((0.25, 0.5, 0.75), _pruned("heads", "neurons")),
    "low-rank": Family(
        (0.5, 0.67, 0.8),
        lambda s: ({"technique": "low-rank", "cost": round(1 - s, 6), "epochs": 0},),
    ),
    "student": Family((), lambda _: (), student=True),
    "student-channels": Family((0.25, 0.5), _pruned("channels"), student=True),
    "student-neurons": Family((0.25, 0.5), _pruned("neurons"), student=True),
}

REFERENCE = Shape("reference")

ARITHMETIC: dict[str, Steps] = {
    "fp32": (),
    "bf16": ({"technique": "bf16"},),
    "int8": ({"technique": "int8"},),
    "int8-mixed": ({"technique": "int8-mixed"},),
}


def between(weaker: Shape, stronger: Shape) -> Shape:
    """The shape half-way between two of one family."""
    return Shape(weaker.family, round((weaker.strength + stronger.strength) / 2, 4))
