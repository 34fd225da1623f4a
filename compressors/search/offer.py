"""What a search offers for serving: the recipes that it found, as a file and as variants.

A variant that the search built says so in its description, and only such a one is ever replaced
or withdrawn by a later search in the same store. Where somebody's own variant, made by another
recipe, has the name of a candidate, the candidate gets another name.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from compressors import artifact, recipe
from compressors.artifact import Workspace
from compressors.asked import Asked
from compressors.errors import StoreError
from compressors.recipe import RecipeBook
from compressors.search.space import REFERENCE, Candidate

FILE = "search.toml"
MARK = "found by gearshift search"
SOURCE = "the recipes that the search found"
_REFERENCE = Candidate(REFERENCE, 0, "fp32")


def text_of(named: Mapping[str, Candidate]) -> str:
    """A recipe file of the reference and the candidates, each under its name."""
    lines = ['reference = "fp32"', "", "[variants.fp32]", 'description = "as trained"']
    for name, candidate in named.items():
        if candidate == _REFERENCE:
            continue
        steps = ",\n".join(f"    {_table(step)}" for step in candidate.steps)
        lines += ["", f'[variants."{name}"]', f'description = "{MARK}"', f"steps = [\n{steps},\n]"]
    return "\n".join(lines) + "\n"


def book_of(named: Mapping[str, Candidate]) -> RecipeBook:
    """The reference and the candidates as recipes."""
    return recipe.parse(text_of(named), SOURCE)


def names(found: Iterable[Candidate], asked: Asked) -> dict[str, Candidate]:
    """The candidates by the name that each is offered under: its own, or `NAME-found` where the
    store holds a variant of that name that the search did not make and that is another."""
    named = {}
    for candidate in found:
        name = candidate.name
        if candidate != _REFERENCE and _taken(name, candidate, asked):
            name = f"{name}-found"
        named[name] = candidate
    return named


def check_reference(asked: Asked) -> None:
    """Raises StoreError where the store's reference is not the task's: nothing that is found
    could be compared with what is there, and it is not the search's to replace."""
    asked.reusable(asked.book[asked.book.reference])


def withdraw(earlier: str, now: Iterable[str], model_folder: Path) -> list[str]:
    """Take out of the store the variants that the recipe file `earlier` offered, that the search
    built, and that are not among `now`; their names."""
    try:
        offered = set(tomllib.loads(earlier).get("variants", {}))
    except tomllib.TOMLDecodeError:  # somebody edited it, and it is theirs now
        return []
    gone = []
    for name in sorted(offered - {*now, "fp32"}):
        if _made_by_search(model_folder / name):
            with Workspace(model_folder) as workspace, workspace.making(name, lambda: None):
                # Under a name that readers skip first: none sees half of a variant.
                hidden = workspace.scratch("withdrawn")
                (model_folder / name).rename(hidden / name)
                shutil.rmtree(hidden)
            gone.append(name)
    return gone


def _taken(name: str, candidate: Candidate, asked: Asked) -> bool:
    folder = asked.options.store / asked.task.name / name
    if not folder.exists() or _made_by_search(folder):
        return False
    book = book_of({name: candidate})
    try:
        return asked.reusable(book[name], book) is None
    except StoreError:
        return True


def _made_by_search(folder: Path) -> bool:
    try:
        return artifact.read(folder).description == MARK
    except StoreError:
        return False


def _table(step: dict[str, object]) -> str:
    # Strings, numbers and booleans are written in TOML as in JSON.
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in step.items()) + " }"
