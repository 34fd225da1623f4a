"""Recipes: what is understood, and that each mistake is told with its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compressors import recipe
from compressors.errors import RecipeError
from tests.compressors.builds import extra_techniques

REFERENCE = "[variants.fp32]\n"


@pytest.fixture(autouse=True)
def _techniques() -> Iterator[None]:
    with extra_techniques():
        yield


def test_steps_are_typed_and_keep_their_defaults() -> None:
    book = recipe.parse(REFERENCE + '[variants.a]\nsteps = [{ technique = "raises" }]\n', "r.toml")
    step = book["a"].steps[0]
    assert step.record().model_dump() == {"technique": "raises", "settings": {"ratio": 0.5}}


def test_a_chain_holds_the_steps_of_its_parents() -> None:
    book = recipe.parse(
        """
        [variants.child]
        from = "parent"
        steps = [{ technique = "claims-int8" }]
        [variants.parent]
        steps = [{ technique = "raises", ratio = 0.25 }]
        [variants.fp32]
        """,
        "r.toml",
    )
    assert [step.technique for step in book.chain("child")] == ["raises", "claims-int8"]
    # The reference first, and parents before their children, whatever the file's order.
    assert [variant.name for variant in book.variants] == ["fp32", "parent", "child"]


def test_engines_are_pinned_or_left_open() -> None:
    book = recipe.parse(
        REFERENCE + '[variants.a]\nengine = "torch"\n[variants.b]\nengines = ["torch", "openvino"]',
        "r.toml",
    )
    engines = {variant.name: variant.engines for variant in book.variants}
    assert engines == {"fp32": None, "a": ("torch",), "b": ("torch", "openvino")}


def test_the_reference_can_be_named() -> None:
    text = 'reference = "plain"\n[variants.plain]\n[variants.other]\nengine = "torch"\n'
    assert recipe.parse(text, "r.toml").reference == "plain"
    assert recipe.parse(REFERENCE, "r.toml").reference == "fp32"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[variants", "r.toml: not TOML: Expected"),
        ("", r"variants: expected at least one \[variants.NAME\], got none"),
        ("colour = 1\n" + REFERENCE, "unknown key 'colour'; expected reference, variants"),
        (REFERENCE + "speed = 9\n", "variants.fp32: unknown key 'speed'; expected description"),
        ("[variants.FP32]\n", "variants.FP32: a variant's name is lower-case"),
        (REFERENCE + "description = 3\n", r"variants.fp32.description: expected a string, got 3"),
        (REFERENCE + 'engine = "abacus"\n', r"variants.fp32.engine: .*openvino.*got 'abacus'"),
        (
            REFERENCE + 'engines = "torch"\n',
            "fp32.engines: expected a list of engines, got 'torch'",
        ),
        (REFERENCE + "engines = []\n", r"fp32.engines: expected a list of engines, got \[\]"),
        (REFERENCE + 'engines = ["torch", "torch"]\n', "fp32.engines: torch is named twice"),
        (
            REFERENCE + 'engine = "torch"\nengines = ["openvino"]\n',
            "variants.fp32: expected engine or engines, got both",
        ),
        (REFERENCE + "steps = 3\n", r"variants.fp32.steps: expected a list of tables, got 3"),
        (
            REFERENCE + '[variants.a]\nsteps = ["raises"]\n',
            r"variants.a.steps\[0\]: expected \{ technique = NAME, ... \}, got 'raises'",
        ),
        (
            REFERENCE + '[variants.a]\nsteps = [{technique = "magic"}]\n',
            r"variants.a.steps\[0\].technique: unknown technique 'magic'; there are .*raises",
        ),
        (
            REFERENCE + '[variants.a]\nsteps = [{technique = "raises", ratios = 0.5}]\n',
            r"variants.a.steps\[0\].ratios: unknown key; expected ratio",
        ),
        (
            REFERENCE + '[variants.a]\nsteps = [{technique = "raises", ratio = 1.5}]\n',
            r"variants.a.steps\[0\].ratio: input should be less than 1, got 1.5",
        ),
        (
            REFERENCE + '[variants.a]\nfrom = "b"\n',
            "variants.a.from: expected one of fp32, a, got 'b'",
        ),
        (
            REFERENCE + '[variants.a]\nfrom = "b"\n[variants.b]\nfrom = "a"\n',
            "goes round in a circle: a -> b -> a",
        ),
        (REFERENCE + "[variants.a]\n", "variants.a.steps: expected at least one step, got none"),
        (
            '[variants.a]\nsteps = [{technique = "raises"}]\n',
            "expected a reference, a variant without steps such as",
        ),
        ('reference = "x"\n' + REFERENCE, "reference: expected one of fp32, got 'x'"),
        (
            'reference = "a"\n[variants.a]\nsteps = [{technique = "raises"}]\n',
            "reference: expected a variant without steps",
        ),
        (
            REFERENCE
            + '[variants.a]\nsteps = [{technique = "claims-int8"}, {technique = "raises"}]\n',
            "variants.a: 'raises' cannot follow: 'claims-int8' already fixed the arithmetic",
        ),
        (
            REFERENCE
            + '[variants.a]\nsteps = [{technique = "claims-int8"}]\n'
            + '[variants.b]\nfrom = "a"\nsteps = [{technique = "bf16"}]\n',
            "variants.b: 'bf16' cannot follow",
        ),
    ],
)
def test_each_mistake_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told) as caught:
        recipe.parse(text, "r.toml")
    assert str(caught.value).startswith("r.toml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        recipe.read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(RecipeError, match="expected UTF-8 text, byte 5 is not"):
        recipe.read(tmp_path / "latin.toml")
