"""The networks of a build: each recipe's steps applied, once, to the network it goes on from."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from compressors import verify
from compressors.errors import BuildError, NotApplicable
from compressors.progress import Advance
from compressors.recipe import RecipeBook, TypedStep
from compressors.technique import Context, Network
from compressors.usertask import Guarded


@dataclass(frozen=True)
class Made:
    """A network and the seconds that all of its steps took, its parents' included."""

    network: Network
    seconds: float


class Networks:
    """Makes networks by variant name, and keeps them: children go on from a copy."""

    def __init__(self, task: Guarded, book: RecipeBook, reference: nn.Module, seed: int) -> None:
        self.reference = reference
        self._task, self._book, self._seed = task, book, seed
        self._made: dict[str, Made | BuildError] = {}
        self._cache: dict[str, Any] = {}

    def get(self, name: str, advance: Advance) -> Made:
        """The network of the variant `name`.

        Raises:
            NotApplicable: a step, here or in a parent, found nothing to act on.
            NothingChanged: the steps left every weight as it was.
            BuildError: whatever else a technique raises.
        """
        known = self._made.get(name)
        if known is None:
            try:
                known = self._make(name, advance)
            except BuildError as error:
                known = error
            self._made[name] = known
        if isinstance(known, BuildError):
            raise known
        return known

    def _make(self, name: str, advance: Advance) -> Made:
        recipe = self._book[name]
        if recipe.parent is not None:
            before = self.get(recipe.parent, advance)
        else:
            before = Made(Network(self.reference), 0.0)
        begun = time.monotonic()
        # A copy: steps may change the network in place, and it may have other children.
        network = replace(before.network, module=copy.deepcopy(before.network.module))
        for index, step in enumerate(recipe.steps):

            def told(fraction: float, text: str, index: int = index) -> None:
                advance((index + fraction) / len(recipe.steps), text)

            network = self._apply(step, network, told)
        if any(step.implementation().numerics is None for step in recipe.steps):
            steps = " and ".join(step.technique for step in recipe.steps)
            verify.changed(
                verify.weights_digest(before.network.module),
                verify.weights_digest(network.module),
                steps,
            )
        return Made(network, before.seconds + time.monotonic() - begun)

    def _apply(self, step: TypedStep, network: Network, advance: Advance) -> Network:
        technique = step.implementation()
        if "student" in technique.needs and self._task.student() is None:
            raise NotApplicable(
                f"{step.technique} needs a student and the task's student() is None"
            )
        context = Context(self._task, self.reference, self._seed, advance, self._cache)
        torch.manual_seed(self._seed)
        try:
            changed = technique.apply(network, context, step.config)
        except (BuildError, MemoryError):
            raise
        except Exception as error:
            # A technique's own fault, or a network it did not foresee: named, and no stack trace.
            raise BuildError(f"{step.technique}: {type(error).__name__}: {error}") from error
        changed.module.eval()
        return changed
