"""The recipes of deploy/recipes are such as the tool takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressors import recipe

FILES = sorted((Path(__file__).parent.parent / "deploy" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_read_and_every_variant_is_described(file: Path) -> None:
    book = recipe.read(file)
    assert len(book.variants) > 1
    assert all(variant.description for variant in book.variants)


def test_training_big_first_and_training_small_have_as_many_epochs() -> None:
    book = recipe.read(next(file for file in FILES if file.stem == "train-big"))

    def epochs(name: str) -> int:
        settings = [step.config.model_dump() for step in book.chain(name)]
        return sum(each["epochs"] * each.get("rounds", 1) for each in settings)

    small = epochs("small")
    assert small > 0
    assert all(epochs(name) == small for name in ("distilled", "cut-tuned", "cut-taught"))
