"""The networks of a build: each recipe's steps applied, once, to the network it goes on from.

With a cache, once ever: a network that an earlier build made of the same things is read back.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from compressors import verify
from compressors.cache import Cache
from compressors.errors import BuildError, NotApplicable, TaskError
from compressors.progress import Advance
from compressors.provenance import Provenance
from compressors.recipe import RecipeBook, TypedStep
from compressors.technique import Context, Network
from compressors.usertask import Guarded

# Reading a network back costs about as much as a step that took less than this.
_WORTH_KEEPING_S = 0.1


@dataclass(frozen=True)
class Made:
    """A network and the seconds that all of its steps took, its parents' included; those of a
    network out of the cache are what they took when it was made. The first `cached` steps were
    done by an earlier build."""

    network: Network
    seconds: float
    cached: int = 0


class Networks:
    """Makes networks by variant name, and keeps them: children go on from a copy."""

    def __init__(
        self,
        task: Guarded,
        book: RecipeBook,
        reference: nn.Module,
        seed: int,
        cache: Cache | None = None,
    ) -> None:
        self.reference = reference
        self._task, self._book, self._seed = task, book, seed
        self._kept, self._provenance = cache, Provenance(task, reference, seed)
        self._made: dict[str, Made | BuildError] = {}
        self._cache: dict[str, Any] = {}

    def get(self, name: str, advance: Advance) -> Made:
        """The network of the variant `name`.

        Raises:
            NotApplicable: a step, here or in a parent, found nothing to act on.
            NothingChanged: a step left every weight as it was.
            BuildError: whatever else a technique raises, its name first.
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

    def of(self, book: RecipeBook, reference: nn.Module | None = None) -> Networks:
        """The networks of other recipes, with what the steps of a build share; from another
        network where `reference` is given, and then without the cache, which knows this one."""
        other = copy.copy(self)
        other._book, other._made = book, {}
        if reference is not None:
            other.reference, other._kept = reference, None
        return other

    def cached_steps(self, name: str) -> int:
        """How many steps of the whole chain of `name` the cache has done already."""
        chain = self._book.chain(name)
        if self._kept is None:
            return 0
        lengths = range(len(chain), 0, -1)
        keys = ((n, self._provenance.key(chain[:n])) for n in lengths)
        return next((n for n, key in keys if self._kept.holds(key)), 0)

    def _make(self, name: str, advance: Advance) -> Made:
        recipe, chain = self._book[name], self._book.chain(name)
        inherited = len(chain) - len(recipe.steps)
        done, made = self._longest_kept(chain, inherited, advance)
        if made is None:
            if recipe.parent is not None:
                made = self.get(recipe.parent, advance)
            else:
                made = Made(Network(self.reference), 0.0)
            # A copy: steps may change the network in place, and it may have other children.
            module = copy.deepcopy(made.network.module)
            made = Made(Network(module, made.network.numerics), made.seconds, made.cached)
        for index in range(done, len(chain)):

            def told(fraction: float, text: str, index: int = index) -> None:
                advance((index - inherited + fraction) / len(recipe.steps), text)

            begun = time.monotonic()
            network = self._apply(chain[index], made.network, told)
            seconds = time.monotonic() - begun
            made = Made(network, made.seconds + seconds, made.cached)
            if self._kept is not None and seconds >= _WORTH_KEEPING_S:
                problem = self._kept.put(self._provenance.key(chain[: index + 1]), made)
                if problem:
                    advance(1.0, f"not kept in the cache: {problem}")
        return made

    def _longest_kept(
        self, chain: Sequence[TypedStep], inherited: int, advance: Advance
    ) -> tuple[int, Made | None]:
        """The most steps of `chain`, beyond the inherited ones, that the cache has done."""
        if self._kept is not None:
            for length in range(len(chain), inherited, -1):
                made = self._kept.get(self._provenance.key(chain[:length]))
                if isinstance(made, Made):
                    made.network.module.eval()
                    advance((length - inherited) / (len(chain) - inherited), "from the cache")
                    return length, replace(made, cached=length)
        return inherited, None

    def _apply(self, step: TypedStep, network: Network, advance: Advance) -> Network:
        technique = step.implementation()
        if "student" in technique.needs and self._task.student() is None:
            raise NotApplicable(
                f"{step.technique} needs a student and the task's student() is None"
            )
        context = Context(self._task, self.reference, self._seed, advance, self._cache)
        torch.manual_seed(self._seed)
        before = verify.weights_digest(network.module)
        try:
            changed = technique.apply(network, context, step.config)
        except BuildError as error:
            # "training: the loss became nan" does not say whose training it was.
            if isinstance(error, TaskError) or str(error).startswith(step.technique):
                raise
            raise type(error)(f"{step.technique}: {error}") from error
        except Exception as error:
            # A technique's own fault, or a network it did not foresee: named, and no stack trace.
            told = "out of memory" if out_of_memory(error) else type(error).__name__
            first = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise BuildError(f"{step.technique}: {told}: {first}") from error
        changed.module.eval()
        if technique.numerics is None:
            verify.changed(before, verify.weights_digest(changed.module), step.technique)
        return changed


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: numpy raises MemoryError for that, torch a plain RuntimeError."""
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
