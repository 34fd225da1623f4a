"""Policies: what a lane that has come free runs. One file = one policy; its name is public.

To add one, put a file here that defines `POLICY`, an object with two methods:

    def assign(self, choices, scene) -> Offer | None: ...
        where a request goes when it arrives: the variant that is to answer; None refuses it
    def dispatch(self, queue, moment) -> Assignment: ...
        the batch for a lane that has come free, or until when to wait for a fuller one

and says `late` and `admits_all`, see `Rule`. Where one word is not enough the file defines
`parametrised(argument)` instead, which returns such an object: `static:int8` is
`static.parametrised("int8")`.

A policy is stateless: what it may know is in its arguments, chance included (`scene.ticket` is a
number that differs by request). It only ever chooses among `choices`, each of which meets what the
request demands of accuracy and cost, so no policy can break a constraint.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.pace import Pace
from router.queue import Waiting


@dataclass(frozen=True, slots=True)
class Scene:
    """What a policy may know when a request arrives.

    Attributes:
        ticket: the request's number.
        rows: rows of its tensors.
        within_ms: time until it is due.
        lane_free_in_ms: for every lane, time until its running batch ends.
        pace: how fast the model's variants run.
        rate_per_s: rows that arrive lately for this model.
        queued_rows: rows that wait for this model, by the variant they were assigned to.
        max_batch: rows of a batch, at most.
        overhead_ms: what an answer costs outside queue and inference.
    """

    ticket: int
    rows: int
    within_ms: float
    lane_free_in_ms: tuple[float, ...]
    pace: Pace
    rate_per_s: float = 0.0
    queued_rows: Mapping[str, int] = field(default_factory=dict)
    max_batch: int = 32
    overhead_ms: float = 0.0


class Rule(Protocol):
    """A policy; see the module."""

    late: bool
    """Whether it decides at dispatch alone, and `assign` need not be asked."""

    admits_all: bool
    """Whether it lets in whatever could be answered on an idle machine, as those published do that
    queue everything, rather than what is predicted to make its deadline now."""

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """The variant that is to answer; None refuses the request."""

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """The batch for a lane that has come free."""


def names() -> list[str]:
    """The policies there are; of one that wants an argument, its name and a colon."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name if hasattr(_module(name), "POLICY") else f"{name}:" for name in found)


def get(name: str) -> Rule:
    """The policy called `name`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    stem, colon, argument = name.partition(":")
    if stem + colon not in names() or bool(argument) != bool(colon):
        known = ", ".join(f"{one}VARIANT" if one.endswith(":") else one for one in names())
        raise ValueError(f"unknown policy {name!r}; there are {known}")
    module = _module(stem)
    rule: Rule = module.parametrised(argument) if colon else module.POLICY
    return rule


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
