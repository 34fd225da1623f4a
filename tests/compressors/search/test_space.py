"""What a search chooses from can be run: every family's steps, untrained and trained."""

from __future__ import annotations

from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from compressors import technique
from compressors.search.space import ARITHMETIC, FAMILIES, Candidate, Shape, Steps
from compressors.technique import Network
from compressors.verify import weights_digest
from tests.compressors.few import Few, FewRows, context_of

CHANGES = [name for name, family in FAMILIES.items() if family.strengths]


def task_for(family: str) -> Few:
    """With a network that has what the family removes."""
    of_transformers = any(part in family for part in ("heads", "neurons", "transformer"))
    return FewRows() if of_transformers else Few()


def run(steps: Steps, task: Few) -> tuple[Network, int]:
    """The network that comes out, and how many steps its training took."""
    network, taken = Network(task.network()), list[Any]()
    handle = register_optimizer_step_pre_hook(lambda *_: taken.append(1))
    for step in steps:
        found = technique.get(step["technique"])
        settings = {key: value for key, value in step.items() if key != "technique"}
        network = found.apply(network, context_of(task), found.Config.model_validate(settings))
    handle.remove()
    return network, len(taken)


@pytest.mark.parametrize("name", CHANGES)
def test_shapes_are_made_without_training_and_a_stronger_one_is_smaller(name: str) -> None:
    family, task = FAMILIES[name], task_for(name)
    sizes = [sum(p.numel() for p in task.network().parameters())]
    for strength in family.strengths[:2]:
        made, steps = run(family.change(strength), task)
        assert steps == 0 and weights_digest(made.module) != weights_digest(task.network())
        sizes.append(sum(p.numel() for p in made.module.parameters()))
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("name", [n for n in CHANGES if not FAMILIES[n].student])
def test_a_candidate_is_trained_for_its_epochs(name: str) -> None:
    shape = Shape(name, FAMILIES[name].strengths[0])
    assert run(Candidate(shape, 2, "fp32").steps, task_for(name))[1] == 2 * (200 // 64)


def test_arithmetic_is_one_step_that_asks_for_numerics() -> None:
    for name, steps in ARITHMETIC.items():
        assert len(steps) == (name != "fp32")
        assert all(technique.get(step["technique"]).numerics for step in steps)
