"""The tables of settings in docs/reference/techniques.md, made from each technique's `Config`.

python -m tests.techniques_page        writes them anew, in place
"""

from __future__ import annotations

import json
import re
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from compressors import technique
from compressors.training import Training

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "techniques.md"

_BLOCK = re.compile(r"<!-- settings: ([a-z0-9-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
_SHARED = "training"
"""The block of what every training technique takes, whose meaning is told once."""


def block(name: str) -> str:
    """What stands between the marks of `name`: a technique's, or "training"."""
    if name == _SHARED:
        return _table(dict(Training.model_fields))
    fields = dict(technique.get(name).Config.model_fields)
    trains = issubclass(technique.get(name).Config, Training)
    shared = set(Training.model_fields) if trains else set()
    lines = ""
    if own := {key: field for key, field in fields.items() if key not in shared}:
        lines += _table(own)
    if trains:
        defaults = ", ".join(f"`{key}` {_default(fields[key])}" for key in Training.model_fields)
        lines += f"\nTraining, by default: {defaults}.\n"
    return lines or "It has no settings.\n"


def blocks(page: str) -> dict[str, str]:
    """By name, what stands in `page`."""
    return dict(_BLOCK.findall(page))


def written(page: str) -> str:
    """`page` with every block made anew."""
    return _BLOCK.sub(lambda m: f"<!-- settings: {m[1]} -->\n{block(m[1])}<!-- end -->", page)


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = [
        f"| `{key}` | {_default(field)} | {_values(field)} | {_escaped(str(field.description))} |\n"
        for key, field in fields.items()
    ]
    return "| setting | default | values | what it says |\n|---|---|---|---|\n" + "".join(rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    assert value is not PydanticUndefined
    if value is None or value == ():
        return "none"
    return f"{value:g}" if isinstance(value, float) else _toml(value)


def _values(field: FieldInfo) -> str:
    kinds = [kind for kind in _members(field.annotation) if kind is not type(None)]
    told: list[str] = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            told += [_toml(value) for value in get_args(kind)]
        elif kind is bool:
            told += ["true", "false"]
        elif kind in (int, float):
            told.append(_bounds(field))
        else:
            told.append("a list of names" if get_origin(kind) is tuple else "a string")
    return _escaped(", ".join(told))


def _bounds(field: FieldInfo) -> str:
    found: dict[str, float] = {}
    for rule in field.metadata:
        for key in ("ge", "gt", "le", "lt"):
            if getattr(rule, key, None) is not None:
                found[key] = getattr(rule, key)
    low = f"{found['ge']:,}" if "ge" in found else f"above {found['gt']:,}"
    high = f"{found['le']:,}" if "le" in found else f"below {found['lt']:,}"
    return f"{low} to {high}"


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return list(get_args(annotation))
    return [annotation]


def _toml(value: object) -> str:
    return f"`{json.dumps(value)}`" if isinstance(value, str) else str(value).lower()


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
