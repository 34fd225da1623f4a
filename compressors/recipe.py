"""Recipes: a TOML file of variants becomes typed steps, or a sentence about what is wrong with it.

reference = "fp32"           # optional: the first variant without steps

[variants.fp32]
description = "the network as it was trained"

[variants.pruned-int8]
description = "half of the channels, in 8-bit integers"
from = "pruned"              # optional: goes on from another variant's network
engines = ["openvino"]       # optional: every engine installed is tried, and the best one kept
steps = [{ technique = "int8", calibration_samples = 300 }]
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compressors import lowering, technique
from compressors.errors import RecipeError, UnknownTechnique
from compressors.technique import Settings, Technique
from router.card import NAME_PATTERN, Step

# The one that serves unless another is faster beyond doubt; it needs no compiler and its files
# are inert.
DEFAULT_ENGINE = "openvino"
_VARIANT_KEYS = ("description", "from", "engine", "engines", "steps")


@dataclass(frozen=True)
class TypedStep:
    """One step: the technique's public name and its validated settings."""

    technique: str
    config: Settings

    def implementation(self) -> Technique:
        return technique.get(self.technique)

    def record(self) -> Step:
        """As the card keeps it: every setting, defaults included."""
        return Step(technique=self.technique, settings=self.config.model_dump(mode="json"))


@dataclass(frozen=True)
class VariantRecipe:
    """How one variant is made: the steps of `parent`, where there is one, then its own. It is
    lowered to `engines`, the first of them the default; None: to every one that is installed."""

    name: str
    description: str
    parent: str | None
    engines: tuple[str, ...] | None
    steps: tuple[TypedStep, ...]


@dataclass(frozen=True)
class RecipeBook:
    """All variants of a file, each after the one it goes on from, the reference first."""

    source: str
    reference: str
    variants: tuple[VariantRecipe, ...]

    def __getitem__(self, name: str) -> VariantRecipe:
        return next(variant for variant in self.variants if variant.name == name)

    def chain(self, name: str) -> tuple[TypedStep, ...]:
        """Every step from the reference network to the variant `name`."""
        variant = self[name]
        before = self.chain(variant.parent) if variant.parent else ()
        return before + variant.steps


def read(path: Path) -> RecipeBook:
    """The recipes of a file.

    Raises:
        RecipeError: it cannot be read, is no TOML, or asks for what does not exist or contradicts
            itself; the message names the file, the variant, the key, what came and what was
            expected.
        TechniqueBroken: a technique's own file cannot be imported.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: expected UTF-8 text, byte {error.start} is not") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> RecipeBook:
    """The recipes of `text`; `source` is what messages call it. Raises as `read` does."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not TOML: {error}") from error
    _known(document, ("reference", "variants"), source)
    tables = document.get("variants")
    if not isinstance(tables, dict) or not tables:
        raise RecipeError(f"{source}: variants: expected at least one [variants.NAME], got none")
    variants = {name: _variant(name, table, source) for name, table in tables.items()}
    reference = _reference(document, variants, source)
    book = RecipeBook(source, reference, _in_order(variants, reference, source))
    for variant in book.variants:
        _consistent(book, variant)
    return book


def _variant(name: str, table: Any, source: str) -> VariantRecipe:
    where = f"{source}: variants.{name}"
    if not re.match(NAME_PATTERN, name):
        raise RecipeError(
            f"{where}: a variant's name is lower-case letters, digits, '.', '_' and '-', "
            "at most 64, starting with a letter or digit"
        )
    if not isinstance(table, dict):
        raise RecipeError(f"{where}: expected a table, got {table!r}")
    _known(table, _VARIANT_KEYS, where)
    for key in ("description", "from", "engine"):
        if not isinstance(table.get(key, ""), str):
            raise RecipeError(f"{where}.{key}: expected a string, got {table[key]!r}")
    steps = table.get("steps", [])
    if not isinstance(steps, list):
        raise RecipeError(f"{where}.steps: expected a list of tables, got {steps!r}")
    return VariantRecipe(
        name,
        table.get("description", ""),
        table.get("from"),
        _engines(table, where),
        tuple(_step(step, f"{where}.steps[{i}]") for i, step in enumerate(steps)),
    )


def _engines(table: dict[str, Any], where: str) -> tuple[str, ...] | None:
    if "engine" in table and "engines" in table:
        raise RecipeError(f"{where}: expected engine or engines, got both")
    if "engine" in table:
        return checked_engines([table["engine"]], f"{where}.engine")
    if "engines" in table:
        return checked_engines(table["engines"], f"{where}.engines")
    return None


def checked_engines(names: Any, where: str) -> tuple[str, ...]:
    """Names of engines, each once.

    Raises:
        RecipeError: they are not; `where` begins the message.
    """
    if not isinstance(names, list) or not names:
        raise RecipeError(f"{where}: expected a list of engines, got {names!r}")
    for name in names:
        if name not in lowering.names():
            raise RecipeError(
                f"{where}: expected one of {', '.join(lowering.names())}, got {name!r}"
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"{where}: {', '.join(twice)} is named twice")
    return tuple(names)


def _step(table: Any, where: str) -> TypedStep:
    if not isinstance(table, dict) or not isinstance(table.get("technique"), str):
        raise RecipeError(f"{where}: expected {{ technique = NAME, ... }}, got {table!r}")
    settings = dict(table)
    name = settings.pop("technique")
    try:
        config = technique.get(name).Config
    except UnknownTechnique as error:
        raise RecipeError(f"{where}.technique: {error}") from error
    try:
        return TypedStep(name, config.model_validate(settings))
    except ValidationError as error:
        raise RecipeError(_explain(error, config, where)) from error


def _explain(error: ValidationError, config: type[Settings], where: str) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        expected = ", ".join(config.model_fields) or "no settings"
        return f"{where}.{key}: unknown key; expected {expected}"
    told = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
    if problem["type"] == "missing":
        return f"{where}.{key}: {told}"
    return f"{where}{'.' if key else ''}{key}: {told}, got {problem['input']!r}"


def _reference(document: dict[str, Any], variants: dict[str, VariantRecipe], source: str) -> str:
    plain = [v.name for v in variants.values() if not v.steps and v.parent is None]
    named = document.get("reference")
    if named is None:
        if not plain:
            raise RecipeError(
                f"{source}: expected a reference, a variant without steps such as "
                "[variants.fp32], got none; every figure is compared with it"
            )
        return plain[0]
    if named not in variants:
        raise RecipeError(
            f"{source}: reference: expected one of {', '.join(variants)}, got {named!r}"
        )
    if named not in plain:
        raise RecipeError(
            f"{source}: reference: expected a variant without steps and without 'from', "
            f"got {named!r}, which changes the network"
        )
    return str(named)


def _in_order(
    variants: dict[str, VariantRecipe], reference: str, source: str
) -> tuple[VariantRecipe, ...]:
    ordered: dict[str, VariantRecipe] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise RecipeError(
                f"{source}: variants.{path[-1]}.from: goes round in a circle: {circle}"
            )
        if name in ordered:
            return
        variant = variants[name]
        if variant.parent is not None:
            if variant.parent not in variants:
                raise RecipeError(
                    f"{source}: variants.{name}.from: expected one of {', '.join(variants)}, "
                    f"got {variant.parent!r}"
                )
            visit(variant.parent, (*path, name))
        ordered[name] = variant

    visit(reference, ())
    for name in variants:
        visit(name, ())
    return tuple(ordered.values())


def _consistent(book: RecipeBook, variant: VariantRecipe) -> None:
    where = f"{book.source}: variants.{variant.name}"
    same = [
        v.name for v in book.variants if not book.chain(v.name) and v.engines == variant.engines
    ]
    if not book.chain(variant.name) and variant.name != book.reference and book.reference in same:
        raise RecipeError(
            f"{where}.steps: expected at least one step, got none: it would be "
            f"{book.reference!r} under another name"
        )
    asked: tuple[str, str] | None = None
    for step in book.chain(variant.name):
        numerics = step.implementation().numerics
        if asked is not None:
            already = f"{asked[0]!r} already fixed the arithmetic to {asked[1]}"
            raise RecipeError(
                f"{where}: {step.technique!r} cannot follow: {already}; "
                "a step that does so must be the last one"
            )
        if numerics is not None:
            asked = (step.technique, numerics)


def _known(table: dict[str, Any], expected: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in expected:
            raise RecipeError(f"{where}: unknown key {key!r}; expected {', '.join(expected)}")
