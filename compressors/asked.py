"""What a build is asked for, read and checked once: the task, its samples, and every variant's
engines, and whether the store already holds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from compressors import artifact, lowering, machine, padded, record, verify
from compressors.cache import Cache
from compressors.errors import NotSupported, StoreError, TaskError
from compressors.interface import Interface, describe, run
from compressors.lowered import Checked
from compressors.networks import Networks
from compressors.recipe import DEFAULT_ENGINE, RecipeBook, VariantRecipe
from compressors.usertask import Guarded
from gateway import evidence
from gateway.engines import EngineError
from gateway.engines import get as get_engine
from router.card import Machine, TaskRecord, VariantCard, misfits

# Enough samples to tell a wrong program from a right one, few enough to take no time.
_CHECKED_SAMPLES = 64


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        store: the folder MODELS.
        only: variants to build, besides the reference; None for all.
        engines: the engines to lower every variant to, whatever its recipe says, the default
            first; None: as the recipes say.
        seed: of every random choice.
        replace: build anew what the store holds in another form.
        bundled: whether the recipes are those that come with Gearshift. Nobody chose them for this
            task, so one that finds nothing to act on is skipped; in a recipe that somebody wrote
            it is an error.
        cache: the folder that keeps trained networks; None for none.
    """

    store: Path
    only: frozenset[str] | None = None
    engines: tuple[str, ...] | None = None
    seed: int = 0
    replace: bool = False
    bundled: bool = False
    cache: Path | None = None

    def wants(self, name: str, book: RecipeBook) -> bool:
        return self.only is None or name in self.only or name == book.reference


class Asked:
    """Reads the task and checks it.

    Raises:
        TaskError: the task is at fault.
        StoreError: the cache cannot be used, or lies in the store.
    """

    def __init__(self, task: Guarded, book: RecipeBook, options: Options) -> None:
        self.task, self.book, self.options = task, book, options
        reference = task.network()
        self.validation = task.samples("validation")
        with task.blamed("the network, on its validation samples"):
            self.interface: Interface = describe(task, reference, self.validation)
            padded.check(reference, self.interface)
            task.check_splits(self.interface)
            inputs = self.validation.batch(slice(0, _CHECKED_SAMPLES)).inputs
            self.checked = Checked(inputs, run(reference, inputs, task.outputs))
            verify.finite(self.checked.expected, "the reference network")
        self.test = task.samples("test")
        self.processing = task.processor()
        if self.processing is not None:
            for problem in misfits(self.processing.record, self.interface.inputs):
                raise TaskError(f"{task.file}: processor(): {problem}")
        self.networks = Networks(task, book, reference, options.seed, _cache(options))
        self.parent_digest = verify.weights_digest(reference)
        self.task_record: TaskRecord = record.task_record(task, self.test)
        self.machine: Machine = machine.describe()
        self.seeds = {"build": options.seed, "bootstrap": evidence.SEED}

    def engines(self, recipe: VariantRecipe) -> tuple[str, ...]:
        """The engines to lower the variant to, the default first."""
        return self.options.engines or recipe.engines or installed_engines()

    def reusable(self, recipe: VariantRecipe, book: RecipeBook | None = None) -> VariantCard | None:
        """The card of the variant as the store holds it; None when it is to be built. `book` is
        what the recipe is from, where that is another one than was asked for.

        Raises:
            StoreError: the store holds it damaged or in another form, and may not replace it.
        """
        book = book or self.book
        folder = self.options.store / self.task.name / recipe.name
        if not folder.exists():
            return None
        try:
            card = artifact.read(folder)
            found = record.differences(
                card,
                reference=book.reference,
                recipe=tuple(step.record() for step in book.chain(recipe.name)),
                parent_digest=self.parent_digest,
                engines=self.engines(recipe),
                task=self.task_record,
                machine=self.machine,
                seeds=self.seeds,
                constructor_digest=self.interface.constructor_digest,
                processor=None if self.processing is None else self.processing.record,
            )
            if not (problems := list(found)):
                return card
            problem = f"{folder} holds another build: {'; '.join(problems)}"
        except StoreError as error:
            problem = str(error)
        if self.options.replace:
            return None
        raise StoreError(f"{problem}. --replace builds it anew")


@cache
def installed_engines() -> tuple[str, ...]:
    """Every engine that a variant can be lowered to and run on here, the default first."""
    there = []
    for name in lowering.names():
        try:
            lowering.get(name)
            get_engine(name)
        except (NotSupported, EngineError):
            continue
        there.append(name)
    return tuple(sorted(there, key=lambda name: (name != DEFAULT_ENGINE, name)))


def _cache(options: Options) -> Cache | None:
    if options.cache is None:
        return None
    if options.cache.resolve().is_relative_to(options.store.resolve()):
        raise StoreError(
            f"the cache {options.cache} lies in the store {options.store}: stores are copied to "
            "other machines, and what is read from a cache is run; name another folder"
        )
    return Cache(options.cache)
