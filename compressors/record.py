"""What a card records besides measurements, and what makes two builds the same."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version

import numpy as np
import torch

from compressors.provenance import definition_digest, samples_digest
from compressors.task import Samples
from compressors.usertask import Guarded
from router.card import Machine, Step, TaskRecord, VariantCard
from router.processor import Processor

# As a trial's name: the network as PyTorch runs it, with no engine.
EAGER = "eager"


def task_record(task: Guarded, test: Samples) -> TaskRecord:
    """What was asked of the network, and on which samples."""
    return TaskRecord(
        name=task.name,
        metric=task.metric,
        split="test",
        samples=len(test),
        clusters=len(test) if test.clusters is None else len(np.unique(test.clusters)),
        labels=task.labels,
        data_digest=samples_digest(test),
        definition_digest=definition_digest(task),
    )


def versions(lowered_with: dict[str, str]) -> dict[str, str]:
    """What made the variant: Python and the packages."""
    return {
        "gearshift": version("gearshift"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **lowered_with,
    }


def differences(
    card: VariantCard,
    *,
    reference: str,
    recipe: tuple[Step, ...],
    parent_digest: str,
    engines: tuple[str, ...],
    task: TaskRecord,
    machine: Machine,
    seeds: dict[str, int],
    constructor_digest: str | None,
    processor: Processor | None,
) -> Iterator[str]:
    """Why the variant of `card` is another than the one now asked for; nothing when it is not.

    Versions of packages do not count: a rebuild at every upgrade would be worse than a figure
    measured with the release before, and the card names it.
    """
    if card.reference != reference:
        yield f"its reference is {card.reference!r}, not {reference!r}"
    if card.recipe != recipe:
        yield f"its recipe was {_told(card.recipe)}, now it is {_told(recipe)}"
    if card.parent_digest != parent_digest:
        yield "the reference network has other weights now"
    tried = tried_engines(card)
    if tried != set(engines):
        yield f"it was built for {_listed(tried)}, now it is asked for {_listed(engines)}"
    if card.task != task:
        yield "the task changed: its code or its samples"
    if card.engine.constructor_digest not in (None, constructor_digest):
        # Even by a comment: what serves it compares bytes.
        yield f"{card.engine.constructor}, which its engine runs, has changed"
    if card.processor != processor:
        yield "its processor is another one"
    here = (machine.cpu, machine.cores, machine.instruction_sets)
    if (card.machine.cpu, card.machine.cores, card.machine.instruction_sets) != here:
        yield f"it was measured on another machine ({card.machine.cpu}, {card.machine.cores} cores)"
    if card.seeds != seeds:
        yield f"its seeds were {card.seeds}, now they are {seeds}"


def tried_engines(card: VariantCard) -> set[str]:
    """The engines that the variant was lowered to, those that refused it among them."""
    return {card.engine.name, *card.refused, *(t.name for t in card.engines)} - {EAGER}


def _listed(engines: Iterable[str]) -> str:
    return " and ".join(sorted(engines))


def _told(recipe: tuple[Step, ...]) -> str:
    # What is None was left open, and is not worth a word.
    steps = (
        " ".join(
            [
                step.technique,
                *(f"{k}={v}" for k, v in sorted(step.settings.items()) if v is not None),
            ]
        )
        for step in recipe
    )
    return "; ".join(steps) or "no steps"
