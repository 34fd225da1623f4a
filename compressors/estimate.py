"""What a build would do and how long it may take, before anything is built: `--dry-run`.

A few real training steps and forward passes of the task's own networks are timed, and multiplied
by what the recipes ask for. What an engine needs to lower a network is known only roughly, and a
technique's own mathematics not at all: expect the sum to be right within a factor of three.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from rich.table import Table
from torch import nn

from compressors import interface, measure
from compressors.asked import Asked, Options
from compressors.errors import StoreError
from compressors.lowered import LOWERING_SECONDS, LOWERING_SECONDS_OTHERWISE
from compressors.progress import Reporter
from compressors.recipe import RecipeBook, TypedStep, VariantRecipe
from compressors.task import Array, Samples, Split, Task
from compressors.threads import threads_kept
from compressors.training import Training, outputs_of, train
from compressors.usertask import Guarded

_TIMED_STEPS = 4
_QUANTISING_S = 4.0  # NNCF on a few hundred samples
_PROCESS_S = 3.0  # a fresh process that imports an engine, for the memory it takes
_MATHEMATICS_S = 1.0  # a step that trains nothing: decompositions, sorting weights
_BATCH_SIZE: int = Training.model_fields["batch_size"].default


@dataclass(frozen=True)
class Forecast:
    """One variant: whether it would be built, what would be done, and the seconds it may take."""

    variant: str
    state: Literal["in the store", "another build is there", "to be built"]
    steps: str
    engines: tuple[str, ...]
    seconds: float


def forecast(
    task: Guarded, book: RecipeBook, options: Options, reporter: Reporter
) -> list[Forecast]:
    """What `build` would do with the same arguments. Nothing is written.

    Raises:
        BuildError: the task is at fault, or the cache cannot be used.
    """
    advance = reporter.stage("reading the task and timing a few steps")
    asked = Asked(task, book, options)
    advance(0.3, "timing")
    reference = _Pace(asked.networks.reference, asked)
    student = task.student()
    paces = (reference, reference if student is None else _Pace(student, asked))
    made: set[str] = set()
    found = []
    for index, recipe in enumerate(book.variants):
        if not options.wants(recipe.name, book):
            continue
        found.append(_of(recipe, asked, paces, made))
        advance(0.3 + 0.7 * (index + 1) / len(book.variants), recipe.name)
    return found


def table(forecasts: Sequence[Forecast]) -> Table:
    """One row per variant, and the sum."""
    total = sum(each.seconds for each in forecasts)
    view = Table(
        title="What would be built",
        caption=f"All together about {duration(total)}, give or take a factor of three.",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("variant", "", "steps", "engines"):
        view.add_column(heading)
    view.add_column("about", justify="right")
    for each in forecasts:
        view.add_row(
            each.variant,
            each.state,
            each.steps,
            ", ".join(each.engines),
            duration(each.seconds) if each.seconds else "",
        )
    return view


def duration(seconds: float) -> str:
    """As a person says it, to two digits or so."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _of(
    recipe: VariantRecipe, asked: Asked, paces: tuple[_Pace, _Pace], made: set[str]
) -> Forecast:
    engines = asked.engines(recipe)
    try:
        if asked.reusable(recipe) is not None:
            return Forecast(recipe.name, "in the store", "", engines, 0.0)
    except StoreError:
        return Forecast(recipe.name, "another build is there", "", engines, 0.0)
    chain = asked.book.chain(recipe.name)
    kept = asked.networks.cached_steps(recipe.name)
    done = max(kept, len(chain) - len(recipe.steps) if recipe.parent in made else 0)
    made.add(recipe.name)
    pace, seconds = paces[0], 0.0
    for index, step in enumerate(chain):
        if "student" in step.implementation().needs:
            pace = paces[1]
        if index >= done:
            seconds += _step_seconds(step, pace, paces[0])
    seconds += _rest_seconds(engines, pace, recipe.name == asked.book.reference)
    if any(step.implementation().numerics == "int8" for step in chain):
        seconds += _QUANTISING_S
    told = [
        f"{step.technique} (cached)" if index < kept else step.technique
        for index, step in enumerate(chain)
    ]
    return Forecast(recipe.name, "to be built", " + ".join(told), engines, seconds)


def _step_seconds(step: TypedStep, pace: _Pace, reference: _Pace) -> float:
    epochs = getattr(step.config, "epochs", 0) * getattr(step.config, "rounds", 1)
    seconds = _MATHEMATICS_S if step.implementation().numerics is None else 0.0
    if epochs:
        size = getattr(step.config, "batch_size", _BATCH_SIZE)
        seconds += epochs * pace.epoch_seconds(size)
    if "student" in step.implementation().needs:
        seconds += reference.train_samples * reference.forward_s
    return float(seconds)


def _rest_seconds(engines: Sequence[str], pace: _Pace, first: bool) -> float:
    """Lowering, measuring and writing."""
    programs = len(engines) + first
    lowering = sum(LOWERING_SECONDS.get(e, LOWERING_SECONDS_OTHERWISE) for e in engines)
    timing = sum(
        max(
            measure.SECONDS_PER_BATCH_SIZE,
            pace.batch_s(batch) * measure.MIN_RUNS.get(batch, measure.MIN_RUNS_OTHERWISE),
        )
        for batch in measure.BATCHES
    )
    scored = (pace.validation_samples * programs + pace.test_samples) * pace.forward_s
    memory = _PROCESS_S + 2 * sum(pace.batch_s(batch) for batch in range(1, 33))
    # Timed beside the engines: the reference as PyTorch runs it, or a variant's yardstick.
    return lowering + (len(engines) + 1) * timing + scored + memory


class _Pace:
    """How fast one network trains and answers, found by doing a little of both."""

    def __init__(self, network: nn.Module, asked: Asked) -> None:
        self._network, self._asked = copy.deepcopy(network), asked
        self.train_samples = len(asked.task.training_samples(0))
        self.validation_samples = len(asked.validation)
        self.test_samples = len(asked.test)

    def epoch_seconds(self, size: int) -> float:
        steps = max(1, self.train_samples // size)
        return steps * self._step_s(size) + self.validation_samples * self.forward_s

    @cached_property
    def forward_s(self) -> float:
        """Of one row, in large batches."""
        rows = self._asked.validation.batch(slice(0, 128))
        outputs_of(self._network, rows)
        begun = time.perf_counter()
        outputs_of(self._network, rows)
        return (time.perf_counter() - begun) / len(rows)

    def batch_s(self, batch: int) -> float:
        """Of one batch on one thread, on the straight line through batches of 1 and of 32."""
        one, many = self._one_and_many
        return one + (many - one) * (batch - 1) / 31

    def _step_s(self, size: int) -> float:
        found: dict[int, float] = self._steps
        if size not in found:
            short = _Short(self._asked.task, _TIMED_STEPS * size)
            how = Training.model_validate({"epochs": 1, "batch_size": size})
            times: list[float] = []

            def told(_fraction: float, _text: str) -> None:
                times.append(time.perf_counter())

            train(copy.deepcopy(self._network), short, how, seed=0, progress=told)
            # Without the first step, which sets things up.
            found[size] = (times[-1] - times[0]) / max(1, len(times) - 1)
        return found[size]

    @cached_property
    def _steps(self) -> dict[int, float]:
        return {}

    @cached_property
    def _one_and_many(self) -> tuple[float, float]:
        task, found = self._asked.task, []
        with threads_kept():
            torch.set_num_threads(1)
            for batch in (1, 32):
                rows = self._asked.validation.batch(slice(0, batch)).inputs
                interface.run(self._network, rows, task.outputs)
                begun = time.perf_counter()
                interface.run(self._network, rows, task.outputs)
                found.append(time.perf_counter() - begun)
        return found[0], max(found)


class _Short(Task):
    """A task whose training split has `count` samples, and whose validation split a few."""

    def __init__(self, task: Guarded, count: int) -> None:
        self._task, self._count = task, count
        self.name, self.outputs = task.name, task.outputs

    def network(self) -> nn.Module:
        return self._task.network()

    def samples(self, split: Split) -> Samples:
        few = self._count if split == "train" else 8
        return self._task.samples(split).batch(slice(0, few))

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        return self._task.score(outputs, targets)

    def loss(self, outputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> torch.Tensor:
        return self._task.loss(outputs, targets)
