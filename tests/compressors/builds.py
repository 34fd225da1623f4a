"""Helpers for tests that run real builds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import compressors.techniques
from compressors import usertask
from compressors.build import Options, Outcome, build
from compressors.progress import Silent
from compressors.recipe import parse

TASK = str(Path(__file__).parents[1] / "tiny_task.py")


@contextmanager
def faulty_techniques() -> Iterator[None]:
    """The techniques of `faulty/` are found as if they lay among the real ones."""
    folder = str(Path(__file__).parent / "faulty")
    compressors.techniques.__path__.append(folder)
    try:
        yield
    finally:
        compressors.techniques.__path__.remove(folder)


def build_of(recipes: str, store: Path, **options: object) -> dict[str, Outcome]:
    """Outcomes by variant of building `recipes` for the tiny task into `store`."""
    book = parse(recipes, "recipes.toml")
    outcomes = build(usertask.load(TASK), book, Options(store, **options), Silent())  # type: ignore[arg-type]
    return {outcome.variant: outcome for outcome in outcomes}
