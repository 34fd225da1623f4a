"""Runs a page's blocks in order, and compares what they write with what the page shows."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from compressors import recipe
from gateway import settings
from router.simulate import mix, table
from tests.docs.blocks import Block
from tests.docs.desk import Desk
from tests.docs.written import agrees, masked

# Nobody runs these by themselves; after the mark `output` they are compared. No Mermaid: its script
# would be fetched from elsewhere.
PROSE = ("text", "http", "promql")


def run(found: list[Block], desk: Desk) -> None:
    """Run a page's blocks in order; an output is compared with what was written last."""
    wrote = None
    try:
        for block, after in zip(found, [*found[1:], None], strict=False):
            if block.not_run is not None:
                wrote = None
            elif block.file is not None:
                desk.keep(block)
            elif block.is_output:
                assert wrote is not None, f"{block}: nothing before it was run"
                compare(block, block.text, wrote)
            elif block.language == "sh":
                shown = after.text if after is not None and after.is_output else ""
                wrote = asked(block, partial(desk.sh, shown=shown))
            elif block.language in ("python", "pycon"):
                wrote = asked(block, getattr(desk, block.language))
            elif block.language == "console":
                for command, shown, wrote in desk.console(block):
                    compare(block, shown, wrote, command)
            elif block.language in PARSERS:
                asked(block, lambda one: PARSERS[one.language](one.text))
            else:
                assert block.language in PROSE, f"{block}: no test knows this language"
    finally:
        desk.close()


def asked(block: Block, how: Callable[[Block], Any]) -> Any:
    """`how(block)`, whose failure names the block."""
    try:
        return how(block)
    except BaseException as error:
        error.add_note(f"in {block}")
        raise


def compare(block: Block, shown: str, wrote: str, command: str = "") -> None:
    assert agrees(shown, wrote), "\n".join(
        [f"{block}: {command}", "shown:", *masked(shown), "written:", *masked(wrote)]
    )


def _toml(text: str) -> None:
    read = tomllib.loads(text)
    if "variants" in read:
        recipe.parse(text, "a page")
    elif "tenant" in read:
        mix.parse(text, "a page")
    elif read.keys() <= settings.Settings.model_fields.keys():
        settings.Settings(**read)
    else:
        raise AssertionError("neither settings, nor recipes, nor tenants")


def _json(text: str) -> None:
    read = json.loads(text)
    if isinstance(read, dict) and "variants" in read:
        table.parse(text, "a page")


PARSERS: dict[str, Callable[[str], object]] = {
    "toml": _toml,
    "json": _json,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}
