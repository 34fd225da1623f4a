"""Helpers for tests that run real builds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import compressors.techniques
from compressors import measure, usertask
from compressors.build import Options, Outcome, build
from compressors.progress import Silent
from compressors.recipe import parse

HERE = Path(__file__).parent
TASK = str(HERE.parent / "tiny_task.py")


# `gearshift compress`, which measures as briefly as `build_of`.
COMMAND = [
    sys.executable,
    "-c",
    "from compressors import measure; from compressors.commands import compress; "
    "measure.SECONDS_PER_BATCH_SIZE = 0.02; measure.MIN_RUNS = {}; compress.main()",
]


@contextmanager
def extra_techniques() -> Iterator[None]:
    """The techniques of `faulty/` are found as if they lay among the real ones."""
    folder = str(HERE / "faulty")
    compressors.techniques.__path__.append(folder)
    try:
        yield
    finally:
        compressors.techniques.__path__.remove(folder)


def build_of(recipes: str, store: Path, task: str = TASK, **options: Any) -> dict[str, Outcome]:
    """Outcomes by variant of building `recipes` for the tiny task into `store`, for openvino
    unless `options` or a recipe name other engines. It measures briefly."""
    book = parse(recipes, "recipes.toml")
    if not any(variant.engines for variant in book.variants):
        options = {"engines": ("openvino",), **options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS_PER_BATCH_SIZE", 0.02)
        patch.setattr(measure, "MIN_RUNS", {})
        outcomes = build(usertask.load(task), book, Options(store, **options), Silent())
    return {outcome.variant: outcome for outcome in outcomes}
