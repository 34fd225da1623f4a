"""Every candidate is a recipe that a build takes."""

from __future__ import annotations

import pytest

from compressors.search import offer
from compressors.search.facts import first_shapes
from compressors.search.space import ARITHMETIC, FAMILIES, REFERENCE, Candidate, Shape


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != REFERENCE.family])
@pytest.mark.parametrize("arithmetic", list(ARITHMETIC))
def test_every_candidate_parses_as_a_recipe(family: str, arithmetic: str) -> None:
    for shape in [*first_shapes([family]), Shape(family, 0.3125)]:
        for epochs in (0, 8):
            candidate = Candidate(shape, epochs, arithmetic)
            if not candidate.steps:
                continue  # an untrained student is nobody's recipe
            book = offer.book_of({candidate.name: candidate})
            told = [step.technique for step in book.chain(candidate.name)]
            assert ("distil" in told) == (FAMILIES[family].student and epochs > 0)
            trained = sum(getattr(step.config, "epochs", 0) for step in book.chain(candidate.name))
            assert trained == epochs * len({"distil", "self-distil"} & set(told))


def test_a_students_prunings_share_its_teaching() -> None:
    weaker, stronger = (Candidate(Shape("student-channels", s), 8, "fp32") for s in (0.25, 0.5))
    assert weaker.steps[0] == stronger.steps[0] == {"technique": "distil", "epochs": 8}
    assert [step["technique"] for step in weaker.steps] == [
        "distil",
        "prune-channels",
        "self-distil",
    ]


def test_heads_and_neurons_go_together() -> None:
    steps = Candidate(Shape("prune-transformer", 0.5), 8, "int8").steps
    assert [step["technique"] for step in steps] == [
        "prune-heads",
        "prune-neurons",
        "self-distil",
        "int8",
    ]
    assert {step["ratio"] for step in steps[:2]} == {0.5}
