"""The card: from its pydantic models, with the text that stands below each field in the source."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from itertools import pairwise
from types import ModuleType
from typing import Any, get_args

from pydantic import BaseModel

from router import card, padding, processor
from tests.docs.pages import table

_SOURCES: tuple[ModuleType, ...] = (card, processor, padding)


def text() -> str:
    waiting: list[type[BaseModel]] = [card.VariantCard]
    done: list[type[BaseModel]] = []
    while waiting:
        model = waiting.pop(0)
        if model in done:
            continue
        done.append(model)
        waiting += [one for field in model.model_fields.values() for one in _models(field)]
    return _INTRODUCTION + "".join(_section(model) for model in done)


def _section(model: type[BaseModel]) -> str:
    said = _beside(model)
    rows = []
    for name, field in model.model_fields.items():
        must = "yes" if field.is_required() else ""
        rows.append((f"`{name}`", _kind(model, name), must, said.get(name, "")))
    summary = " ".join((model.__doc__ or "").split())
    if model is card.VariantCard:
        summary = "The file itself."
    return f"\n## {model.__name__}\n\n{summary}\n\n{table(_HEADINGS, rows)}"


def _models(field: Any) -> list[type[BaseModel]]:
    """The records that a field may hold, wherever they stand in its type."""
    found: list[type[BaseModel]] = []
    waiting = [field.annotation]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, type) and issubclass(one, BaseModel):
            found.append(one)
        waiting += [arg for arg in get_args(one) if not isinstance(arg, str)]
    return found


def _kind(model: type[BaseModel], name: str) -> str:
    """A field's type as the JSON schema has it."""
    schema = model.model_json_schema()
    return _said(schema["properties"][name])


def _said(schema: dict[str, Any]) -> str:
    if "anyOf" in schema or "oneOf" in schema:
        parts = schema.get("anyOf") or schema.get("oneOf")
        return " or ".join(_said(part) for part in parts)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name == "JsonValue":
            return "any JSON"
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        inside = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_said(inside)}"
    if schema.get("type") == "object":
        inside = schema.get("additionalProperties")
        return f"object of {_said(inside)}" if isinstance(inside, dict) and inside else "object"
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    return " ".join([str(schema.get("type", "any")), ", ".join(bounds)]).strip()


def _beside(model: type[BaseModel]) -> dict[str, str]:
    """By field, the string that stands below it in its class, or in a class that it extends."""
    said: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not any(kind.__module__ == source.__name__ for source in _SOURCES):
            continue
        body = _body(kind)
        for field, after in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                said[field.target.id] = re.sub(r"\s+", " ", str(after.value.value))
    return said


def _body(kind: type) -> list[ast.stmt]:
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(found, ast.ClassDef)
    return found.body


_HEADINGS = ("field", "type", "required", "what it says")
_INTRODUCTION = """# Card

`MODELS/model/variant/card.json`: what a variant is, how it was made, what was measured, on what
machine. `gearshift compress` writes it once, and nothing changes it afterwards. Unknown fields are
refused, and no value is converted: a card says what was measured and nothing else. `gearshift show`
prints one.

```sh
gearshift show models/digits/int8 --json > card.json
python -c 'import json; print(json.load(open("card.json"))["accuracy"]["low"])'
```

<!-- output -->
```text
0.9599129116765601
```
"""
