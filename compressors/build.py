"""The build: load -> apply -> lower -> verify -> measure -> write. The only orchestration.

Each variant is built from the reference network through the steps of its recipe. A network that
several variants go on from is made once. A variant that fails is reported by name and the rest is
still built; only without a reference is there nothing to compare with, and the build stops.

A variant that the store already holds is reused when it is whole and was made from the same
weights, by the same steps, for the same engine, on the same test samples and machine. When
something differs the store is left alone and the difference is told; `replace` builds it anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from compressors import artifact, lowering, machine, measure, record, resident, verify
from compressors.artifact import Workspace
from compressors.draft import draft_card
from compressors.errors import BuildError, NotApplicable, NotSupported, StoreError
from compressors.interface import Interface, describe, run
from compressors.measure import Scores
from compressors.networks import Networks
from compressors.progress import Advance, Reporter
from compressors.recipe import RecipeBook, VariantRecipe
from compressors.technique import Network
from compressors.usertask import Guarded
from gateway import engines, evidence
from gateway.engines import EngineError, Program
from router.card import EngineRecord, LatencyPoint, Machine, TaskRecord, VariantCard

# Enough samples to tell a wrong program from a right one, few enough to take no time.
_CHECKED_SAMPLES = 64


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        store: the folder MODELS.
        only: variants to build, besides the reference; None for all.
        engine: the engine to build every variant for, whatever its recipe says.
        seed: of every random choice.
        replace: build anew what the store holds in another form.
        bundled: whether the recipes are those that come with Gearshift. Nobody chose them for this
            task, so one that finds nothing to act on is skipped; in a recipe that somebody wrote
            it is an error.
    """

    store: Path
    only: frozenset[str] | None = None
    engine: str | None = None
    seed: int = 0
    replace: bool = False
    bundled: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one variant: `card` when there is one to serve, else `reason`."""

    variant: str
    state: Literal["built", "reused", "skipped", "failed"]
    card: VariantCard | None = None
    reason: str = ""


def build(task: Guarded, book: RecipeBook, options: Options, reporter: Reporter) -> list[Outcome]:
    """Build the variants of `book` into the store and say what became of each, reference first.

    Raises:
        BuildError: the task is at fault, the store cannot be written, or the reference failed.
    """
    recipes = [v for v in book.variants if _wanted(v.name, book, options)]
    with Workspace(options.store / task.name) as workspace:
        job = _Job(task, book, options, workspace, reporter)
        outcomes = []
        for index, recipe in enumerate(recipes):
            label = f"[{index + 1}/{len(recipes)}] {recipe.name}"
            outcome = job.variant(recipe, label)
            if recipe.name == book.reference and outcome.card is None:
                raise BuildError(
                    f"the reference {recipe.name!r} was {outcome.state}, and without it there is "
                    f"nothing to compare with: {outcome.reason}"
                )
            outcomes.append(outcome)
    return outcomes


def _wanted(name: str, book: RecipeBook, options: Options) -> bool:
    return options.only is None or name in options.only or name == book.reference


class _Job:
    """What the variants of one build share."""

    def __init__(
        self,
        task: Guarded,
        book: RecipeBook,
        options: Options,
        workspace: Workspace,
        reporter: Reporter,
    ) -> None:
        self.task, self.book, self.options = task, book, options
        self.workspace, self.reporter = workspace, reporter
        reporter.stage("reading the task")
        reference = task.network()
        validation = task.samples("validation")
        with task.blamed("the network, on its validation samples"):
            self.interface: Interface = describe(task, reference, validation)
            task.check_splits(self.interface)
            self.checked = validation.batch(slice(0, _CHECKED_SAMPLES)).inputs
            self.expected = run(reference, self.checked, task.outputs)
            verify.finite(self.expected, "the reference network")
        self.test = task.samples("test")
        self.networks = Networks(task, book, reference, options.seed)
        self.parent_digest = verify.weights_digest(reference)
        self.task_record: TaskRecord = record.task_record(task, self.test)
        self.machine: Machine = machine.describe()
        self.seeds = {"build": options.seed, "bootstrap": evidence.SEED}

    def variant(self, recipe: VariantRecipe, label: str) -> Outcome:
        """Reuse or build one variant, and turn its errors into an outcome."""
        begun, say = time.monotonic(), self.reporter.say
        try:
            card = self._reusable(recipe)
            if card is not None:
                say(f"{label}: in the store already")
                return Outcome(recipe.name, "reused", card)
            card = self._build(recipe, label)
        except (BuildError, EngineError) as error:
            if isinstance(error, NotSupported) or (
                self.options.bundled and isinstance(error, NotApplicable)
            ):
                say(f"{label}: skipped: {error}")
                return Outcome(recipe.name, "skipped", reason=str(error))
            say(f"{label}: {type(error).__name__}: {error}")
            return Outcome(recipe.name, "failed", reason=f"{type(error).__name__}: {error}")
        say(f"{label}: built in {time.monotonic() - begun:.1f} s")
        return Outcome(recipe.name, "built", card)

    def _build(self, recipe: VariantRecipe, label: str) -> VariantCard:
        stage = self.reporter.stage
        made = self.networks.get(recipe.name, stage(f"{label}: {_steps(recipe)}"))
        network, begun = made.network, time.monotonic()

        advance = stage(f"{label}: lowering and checking")
        folder = self.workspace.folder(recipe.name)
        target = lowering.get(self._engine(recipe))
        advance(0.1, "lowering")
        memory = target.lower(network, self.interface, folder)
        draft = draft_card(
            self._engine(recipe),
            target.format(network),
            network.numerics.precision,
            self.interface.inputs,
            self.interface.outputs,
        )
        advance(0.8, "checking")
        kernels = self._verified(network, memory, folder, draft)
        build_seconds = made.seconds + time.monotonic() - begun

        scores = self._scores(folder, draft, stage(f"{label}: accuracy"))
        # The reference is compared with itself: a difference of exactly zero.
        first = recipe.name == self.book.reference
        reference = scores if first else self._reference_scores()
        latency = self._latency(folder, draft, stage(f"{label}: latency"))
        advance = stage(f"{label}: memory")
        resident_bytes = resident.measure(folder, draft)
        size = sum(path.stat().st_size for path in folder.iterdir())
        scores.save(folder)
        card = VariantCard(
            schema_version=1,
            model=self.task.name,
            variant=recipe.name,
            description=recipe.description,
            reference=self.book.reference,
            recipe=tuple(step.record() for step in self.book.chain(recipe.name)),
            parent_digest=self.parent_digest,
            precision=network.numerics.precision,
            task=self.task_record,
            accuracy=measure.accuracy(scores),
            paired=measure.paired(scores, reference),
            latency=latency,
            machine=self.machine,
            engine=EngineRecord(
                name=draft.engine.name,
                version=engines.get(draft.engine.name).version(),
                format=draft.engine.format,
                kernels=kernels,
            ),
            inputs=self.interface.inputs,
            outputs=self.interface.outputs,
            parameters=sum(parameter.numel() for parameter in network.module.parameters()),
            bytes_on_disk=size,
            resident_bytes=resident_bytes,
            build_seconds=build_seconds,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=record.versions(target.version()),
            seeds=self.seeds,
        )
        self.workspace.publish(recipe.name, card, replace=self.options.replace)
        return card

    def _verified(
        self, network: Network, memory: Program, folder: Path, draft: VariantCard
    ) -> dict[str, int]:
        """The kernels that ran, once the program on disk has passed every check."""
        own = run(network.module, self.checked, self.task.outputs)
        verify.same_shapes(self.expected, own, "the network")
        verify.finite(own, "the network")
        disk = self._load(folder, draft, threads=1)
        got = disk.infer(self.checked)
        verify.same_shapes(self.expected, got, "the program")
        verify.finite(got, "the program")
        verify.export_matches(own, got, network.numerics.precision)
        verify.reload_matches(memory.infer(self.checked), got)
        kernels = disk.kernels()
        verify.right_kernels(kernels, network.numerics.precision)
        memory.close()
        disk.close()
        return kernels

    def _scores(self, folder: Path, draft: VariantCard, advance: Advance) -> Scores:
        # All cores: a score does not depend on how many computed it.
        program = self._load(folder, draft, threads=self.machine.cores)
        try:
            return measure.scores(self.task, program, self.test, advance)
        finally:
            program.close()

    def _latency(
        self, folder: Path, draft: VariantCard, advance: Advance
    ) -> tuple[LatencyPoint, ...]:
        program = self._load(folder, draft, threads=1)
        try:
            return measure.latency(program, self.task.samples("validation"), 1, advance)
        finally:
            program.close()

    def _load(self, folder: Path, draft: VariantCard, threads: int) -> Program:
        # What is loaded here was written by this process a moment ago: it is trusted by that.
        engine = engines.get(draft.engine.name)
        return engine.load(folder, draft, threads=threads, trusted=True)

    def _reference_scores(self) -> Scores:
        return Scores.load(self.options.store / self.task.name / self.book.reference)

    def _engine(self, recipe: VariantRecipe) -> str:
        return self.options.engine or recipe.engine

    def _reusable(self, recipe: VariantRecipe) -> VariantCard | None:
        """The card of the variant as the store holds it; None when it is to be built.

        Raises:
            StoreError: the store holds it damaged or in another form, and may not replace it.
        """
        folder = self.options.store / self.task.name / recipe.name
        if not folder.exists():
            return None
        try:
            card = artifact.read(folder)
            found = record.differences(
                card,
                reference=self.book.reference,
                recipe=tuple(step.record() for step in self.book.chain(recipe.name)),
                parent_digest=self.parent_digest,
                engine=self._engine(recipe),
                task=self.task_record,
                machine=self.machine,
                seeds=self.seeds,
            )
            if not (problems := list(found)):
                return card
            problem = f"{folder} holds another build: {'; '.join(problems)}"
        except StoreError as error:
            problem = str(error)
        if self.options.replace:
            return None
        raise StoreError(f"{problem}. --replace builds it anew")


def _steps(recipe: VariantRecipe) -> str:
    return " + ".join(step.technique for step in recipe.steps) or "as trained"
