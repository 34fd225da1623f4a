"""The build: load -> apply -> lower -> verify -> measure -> write. The only orchestration.

Each variant is built from the reference network through the steps of its recipe, lowered to every
engine it is asked for, and served by the best of them. A network that several variants go on from
is made once. A variant that fails is reported by name and the rest is still built; only without a
reference is there nothing to compare with, and the build stops.

A variant that the store already holds is reused when it is whole and was made from the same
weights, by the same steps, for the same engines, on the same test samples and machine. When
something differs the store is left alone and the difference is told; `replace` builds it anew.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from compressors import artifact, measure, record, resident, trials
from compressors.artifact import Workspace
from compressors.asked import Asked, Options
from compressors.eager import Eager
from compressors.errors import BuildError, NotApplicable, NotSupported
from compressors.lowered import Lowered, lower
from compressors.measure import Scores
from compressors.networks import Made
from compressors.progress import Advance, Reporter, ticking
from compressors.recipe import RecipeBook, VariantRecipe
from compressors.threads import threads_kept
from compressors.trials import Trial
from compressors.usertask import Guarded
from gateway import engines
from gateway.engines import EngineError, Program
from router.card import EngineRecord, LatencyPoint, VariantCard

__all__ = ["Options", "Outcome", "build"]

_MEMORY_S = 3.0  # what it takes to see how much memory a variant takes, for the bar


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
    recipes = [variant for variant in book.variants if options.wants(variant.name, book)]
    with Workspace(options.store / task.name) as workspace:
        reporter.stage("reading the task")
        job = _Job(Asked(task, book, options), workspace, reporter)
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


class _Job:
    """Makes one variant after the other of what is asked."""

    def __init__(self, asked: Asked, workspace: Workspace, reporter: Reporter) -> None:
        self.asked, self.task, self.options = asked, asked.task, asked.options
        self.workspace, self.reporter = workspace, reporter

    def variant(self, recipe: VariantRecipe, label: str) -> Outcome:
        """Reuse or build one variant, and turn its errors into an outcome."""
        begun, say = time.monotonic(), self.reporter.say

        def waits() -> None:
            say(f"{label}: another build is making it; waiting for that one")

        try:
            with self.workspace.making(recipe.name, waits):
                card = self.asked.reusable(recipe)
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
        asked, stage = self.asked, self.reporter.stage
        steps = " + ".join(step.technique for step in recipe.steps) or "as trained"
        made = asked.networks.get(recipe.name, stage(f"{label}: {steps}"))
        if made.cached:
            total = len(asked.book.chain(recipe.name))
            self.reporter.say(f"{label}: {made.cached} of {total} steps from the cache")

        names = asked.engines(recipe)
        lowered, refused = lower(
            names,
            made.network,
            asked.interface,
            asked.checked,
            {name: self.workspace.scratch(f"{recipe.name}-{name}") for name in names},
            stage(f"{label}: lowering and checking"),
        )
        for name, why in refused.items():
            self.reporter.say(f"{label}: not on {name}: {why}")

        # The reference is compared with itself: a difference of exactly zero.
        first = recipe.name == self.asked.book.reference
        found, yardstick = trials.measured(
            lowered,
            Eager(made.network.module, asked.interface, 1) if first else None,
            None if first else self._reference_program,
            self.task,
            asked.validation,
            asked.machine.cores,
            stage(f"{label}: latency"),
        )
        name, why = trials.choose(found, lowered[0].engine)
        if len(lowered) > 1:
            self.reporter.say(f"{label}: {why}")
        winner = next(each for each in lowered if each.engine == name)

        scores = self._scores(winner, stage(f"{label}: accuracy"))
        with ticking(stage(f"{label}: memory"), _MEMORY_S, "in a process of its own"):
            resident_bytes = resident.measure(
                winner.folder, winner.draft, asked.interface.measured_shapes
            )

        card = self._card(
            recipe, made, lowered, refused, winner, found, yardstick, scores,
            scores if first else self._reference_scores(), resident_bytes,
        )  # fmt: skip
        folder = self.workspace.folder(recipe.name)
        for each in lowered:
            self.workspace.adopt(recipe.name, each.folder)
        scores.save(folder)
        if asked.processing is not None:
            for file, source in asked.processing.files.items():
                shutil.copyfile(source, folder / file)
        self.workspace.publish(recipe.name, card, replace=self.options.replace)
        return card

    def _card(
        self,
        recipe: VariantRecipe,
        made: Made,
        lowered: list[Lowered],
        refused: dict[str, str],
        winner: Lowered,
        found: dict[str, Trial],
        yardstick: tuple[LatencyPoint, ...],
        scores: Scores,
        reference: Scores,
        resident_bytes: int,
    ) -> VariantCard:
        asked, numerics = self.asked, made.network.numerics
        trial = found[winner.engine].record
        return VariantCard(
            schema_version=1,
            model=self.task.name,
            variant=recipe.name,
            description=recipe.description,
            reference=asked.book.reference,
            recipe=tuple(step.record() for step in asked.book.chain(recipe.name)),
            parent_digest=asked.parent_digest,
            precision=numerics.precision,
            weights=numerics.weights,
            task=asked.task_record,
            accuracy=measure.accuracy(scores),
            paired=measure.paired(scores, reference),
            latency=trial.latency,
            yardstick=yardstick,
            measured_shapes=asked.interface.measured_shapes,
            padding=asked.interface.padding,
            machine=asked.machine,
            engine=EngineRecord(
                name=trial.name,
                version=trial.version,
                format=trial.format,
                kernels=trial.kernels,
                constructor=winner.draft.engine.constructor,
                constructor_digest=winner.draft.engine.constructor_digest,
            ),
            engines=tuple(each.record for each in found.values()),
            refused=refused,
            inputs=asked.interface.inputs,
            outputs=asked.interface.outputs,
            processor=None if asked.processing is None else asked.processing.record,
            parameters=sum(each.numel() for each in made.network.module.parameters()),
            bytes_on_disk=winner.bytes_on_disk,
            resident_bytes=resident_bytes,
            build_seconds=made.seconds + winner.seconds,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=record.versions({k: v for each in lowered for k, v in each.versions.items()}),
            seeds=asked.seeds,
        )

    def _scores(self, winner: Lowered, advance: Advance) -> Scores:
        with threads_kept():
            # All cores: a score does not depend on how many computed it.
            program = winner.load(self.asked.machine.cores)
            try:
                return measure.scores(self.task, program, self.asked.test, advance)
            finally:
                program.close()

    @property
    def _reference_folder(self) -> Path:
        return self.options.store / self.task.name / self.asked.book.reference

    def _reference_scores(self) -> Scores:
        return Scores.load(self._reference_folder)

    def _reference_program(self) -> Program:
        """The reference as it serves, on one thread."""
        card = artifact.read(self._reference_folder)
        # This build made it, or found it to be what it would have made: it is trusted by that.
        engine = engines.get(card.engine.name)
        return engine.load(self._reference_folder, card, threads=1, trusted=True)
