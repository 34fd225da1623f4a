"""`gearshift show`: one variant's card, in full."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway import catalog
from gateway.catalog import VariantUnusable
from gateway.cli.console import STORE_PROBLEM, fail, out, print_json, table
from gateway.cli.store import JsonOption
from router.card import CARD_FILE, Step, VariantCard


def show(
    variant: Annotated[
        Path,
        typer.Argument(metavar="MODELS/model/variant", help="The folder of one variant."),
    ],
    json: JsonOption = False,
) -> None:
    """Show a variant's card in full: what it is, how it was made, what was measured.

    Exit code: 0; 1 when the variant is not there or not whole.
    """
    folder = variant.resolve()
    if not folder.is_dir():
        beside = _folders(folder.parent)
        there = f"; {folder.parent.name} has {', '.join(beside)}" if beside else ""
        fail(f"{variant}: there is no such variant{there}", STORE_PROBLEM)
    if (inside := _folders(folder)) and not (folder / CARD_FILE).exists():
        fail(f"{variant}: no variant, but a folder of {', '.join(inside)}", STORE_PROBLEM)
    try:
        card = catalog.read_variant(folder).card
    except VariantUnusable as error:
        fail(f"{variant}: {error}", STORE_PROBLEM)
    if json:
        print_json(card.model_dump(mode="json"))
        return
    _print(card, out())


def _print(card: VariantCard, console: Console) -> None:
    # Every field by its own name, so that a card's new field is shown without a change here.
    values = {name: getattr(card, name) for name in type(card).model_fields}
    nested = {name: value for name, value in values.items() if not _is_plain(value)}
    plain = {name: value for name, value in values.items() if name not in nested}
    console.print(Text(f"{card.model}/{card.variant}", style="bold"))
    console.print(Padding(_grid(plain), (0, 2), expand=False))
    for name, value in nested.items():
        console.print(Text(_label(name), style="bold"))
        console.print(Padding(_section(value), (0, 2), expand=False))


def _section(value: object) -> Table | Text:
    if isinstance(value, BaseModel):
        return _grid({name: getattr(value, name) for name in type(value).model_fields})
    if isinstance(value, dict):
        return _grid(value, _verbatim) if value else Text("none")
    if not isinstance(value, tuple) or not value:
        return Text("none: the network as it is")
    if isinstance(value[0], Step):
        return _grid({f"{n}. {s.technique}": s.settings for n, s in enumerate(value, 1)}, _verbatim)
    fields = list(type(value[0]).model_fields)
    view = table(*(_label(field) for field in fields), left=0)
    for item in value:
        view.add_row(*(_text(field, getattr(item, field)) for field in fields))
    return view


def _grid(values: dict[str, object], label: object = None) -> Table:
    name_of = _label if label is None else _verbatim
    view = Table.grid(padding=(0, 2), expand=False)
    view.add_column(no_wrap=True)
    view.add_column(overflow="fold")
    for name, value in values.items():
        view.add_row(Text(name_of(name), style="dim"), Text(_text(name, value)))
    return view


def _text(name: str, value: object) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items()) or "no settings"
    if isinstance(value, tuple):
        return ", ".join(str(inner) for inner in value) or "none"
    if name.endswith("bytes") or name.startswith("bytes"):
        return f"{value:,} ({float(str(value)) / 1e6:,.2f} MB)"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _label(name: str) -> str:
    return name.replace("_", " ")


def _verbatim(name: str) -> str:
    return name


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int, float))


def _folders(parent: Path) -> list[str]:
    try:
        return sorted(child.name for child in parent.iterdir() if child.is_dir())
    except OSError:
        return []
