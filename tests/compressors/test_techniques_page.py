"""docs/reference/techniques.md tells of every technique: its use, its settings, its refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compressors import recipe, technique
from tests.techniques_page import PAGE, block, blocks, written

NAMES = technique.names()
COMPRESSORS = Path(technique.__file__).parent
RECIPES = sorted((PAGE.parents[2] / "deploy" / "recipes").glob("techniques*.toml"))


def sections() -> dict[str, str]:
    """The text under each heading of the third level."""
    parts = re.split(r"^### (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return {
        name.strip("` "): re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_every_technique_has_a_section_and_no_other_thing_has() -> None:
    assert sorted(sections()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_section_tells_its_settings_as_they_are(name: str) -> None:
    """`python -m tests.techniques_page` makes them anew."""
    assert blocks(sections()[name]) == {name: block(name)}
    for key in technique.get(name).Config.model_fields:
        assert f"`{key}`" in sections()[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_section_tells_source_refusals_and_what_was_measured(name: str) -> None:
    text = sections()[name]
    for told in ("Source:", "Refuses", "Measured:"):
        assert told in text, told
    source = text[text.index("Source:") :].partition("\n\n")[0]
    numbers = set(re.findall(r"\b\d{4}\.\d{4,5}\b", source))
    own = (COMPRESSORS / "techniques" / f"{name.replace('-', '_')}.py").read_text()
    assert any(number in own for number in numbers)
    every = "".join(file.read_text() for file in COMPRESSORS.glob("**/*.py"))
    assert not {number for number in numbers if number not in every}


def test_the_tables_are_as_the_generator_writes_them() -> None:
    assert written(PAGE.read_text()) == PAGE.read_text()


def test_the_recipes_that_are_measured_use_every_technique() -> None:
    used = {
        step.technique
        for file in RECIPES
        for variant in recipe.read(file).variants
        for step in variant.steps
    }
    assert used == set(NAMES)
