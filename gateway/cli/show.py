"""`gearshift show`: one variant's card, in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail, out, print_json, table
from gateway.cli.store import JsonOption, load_settings
from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import StoreUnusable, VariantUnusable
from gateway.settings import SettingsError
from gateway.store import urls
from router.card import CARD_FILE, EngineTrial, Step, VariantCard


def show(
    variant: Annotated[
        str,
        typer.Argument(
            metavar="MODELS/model/variant", help="The folder of one variant, or its URL."
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Show a variant's card in full: what it is, how it was made, what was measured.

    Exit code: 0; 1 when the variant is not there or not whole.
    """
    folder = _fetched(variant) if urls.is_url(variant) else Path(variant).resolve()
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


def _fetched(url: str) -> Path:
    from gateway.store import source

    try:
        folder, why = source.variant(url, load_settings(None))
    except SettingsError as error:
        fail(str(error), BAD_VALUE)
    except StoreUnusable as error:
        fail(str(error), STORE_PROBLEM)
    if why:
        fail(f"{url}: {why}", STORE_PROBLEM)
    return folder


def _print(card: VariantCard, console: Console) -> None:
    # Every field by its own name, so that a card's new field is shown without a change here.
    values = {name: getattr(card, name) for name in type(card).model_fields}
    nested = {name: value for name, value in values.items() if not _is_plain(value)}
    plain = {name: value for name, value in values.items() if name not in nested}
    console.print(Text(f"{card.model}/{card.variant}", style="bold"))
    console.print(Padding(_grid(plain), (0, 2), expand=False))
    for name, value in nested.items():
        console.print(Text(_label(name), style="bold"))
        for part in _section(name, value):
            console.print(Padding(part, (0, 2), expand=False))


def _section(name: str, value: object) -> Iterator[Table | Text]:
    if isinstance(value, BaseModel):
        yield _grid({field: getattr(value, field) for field in type(value).model_fields})
    elif isinstance(value, dict):
        yield _grid(value, verbatim=True) if value else Text("none")
    elif not isinstance(value, tuple) or not value:
        yield Text("none: the network as it is" if name == "recipe" else "none")
    elif isinstance(value[0], Step):
        steps = {f"{n}. {step.technique}": step.settings for n, step in enumerate(value, 1)}
        yield _grid(steps, verbatim=True)
    elif isinstance(value[0], EngineTrial):
        yield from _trials(value)
    else:
        fields = list(type(value[0]).model_fields)
        view = table(*(_label(field) for field in fields), left=0)
        for item in value:
            view.add_row(*(_text(field, getattr(item, field)) for field in fields))
        yield view


def _trials(trials: Sequence[EngineTrial]) -> Iterator[Table]:
    """Figures in a table that 80 columns hold, then what each was."""
    view = table(
        "engine", "batch 1\np50 ms", "best batch\np50 ms", "validation", "disk MB", "kernels"
    )
    for trial in trials:
        best = min(trial.latency, key=lambda point: point.p50_ms / point.batch)
        view.add_row(
            trial.name,
            f"{trial.latency[0].p50_ms:.4g}",
            f"{best.batch}: {best.p50_ms:.4g}",
            f"{trial.validation:.4f}",
            f"{trial.bytes_on_disk / 1e6:.2f}",
            _text("kernels", trial.kernels),
        )
    yield view
    yield _grid({trial.name: f"{trial.format}, {trial.version}" for trial in trials}, verbatim=True)


def _grid(values: Mapping[str, object], *, verbatim: bool = False) -> Table:
    """Names and values; `verbatim` names are not the card's own, and their numbers no counts."""
    view = Table.grid(padding=(0, 2), expand=False)
    view.add_column(no_wrap=True)
    view.add_column(overflow="fold")
    for name, value in values.items():
        plain = verbatim and not isinstance(value, dict)
        view.add_row(
            Text(name if verbatim else _label(name), style="dim"),
            Text(str(value) if plain else _text(name, value)),
        )
    return view


def _text(name: str, value: object) -> str:
    if value is None:
        return _ABSENT.get(name, "not recorded")
    if isinstance(value, dict):
        told = (f"{key} {'none' if inner is None else inner}" for key, inner in value.items())
        return ", ".join(told) or ("none" if name == "kernels" else "no settings")
    if isinstance(value, tuple):
        return ", ".join(str(inner) for inner in value) or "none"
    if name.endswith("bytes") or name.startswith("bytes"):
        size = float(str(value))
        scaled = f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"
        return f"{value:,} ({scaled})"
    if isinstance(value, float):
        return f"{value:.4g}" if name.endswith("_ms") else f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# What it means that a field is not there.
_ABSENT = {
    "weights": "as the arithmetic has them",
    "constructor": "none: the program runs by itself",
    "constructor_digest": "none",
}


def _label(name: str) -> str:
    return name.replace("_", " ")


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _folders(parent: Path) -> list[str]:
    try:
        return sorted(child.name for child in parent.iterdir() if child.is_dir())
    except OSError:
        return []
