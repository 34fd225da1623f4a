"""`gearshift keys`: make, list and revoke API keys, in the database that servers share."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import settings
from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail, out, print_json, table
from gateway.cli.options import ConfigOption, with_settings
from gateway.settings import SettingsError
from gateway.trust import keys as api_keys
from gateway.trust.keys import Key
from gateway.trust.ledger import Ledger, LedgerUnusable, NameTaken
from router.errors import InvalidRequest

keys = typer.Typer(
    no_args_is_help=True,
    help="Make, list and revoke API keys.\n\nThey are kept in the state folder of a store, or in "
    "the database that the settings name. A running server notices within a second. The first key "
    "closes the server: from then on every request needs one.",
)

_WHERE = ("models", "state", "database")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_NAME = typer.Argument(metavar="NAME", help="The key's name, or its id.")


@keys.command()
@with_settings(*_WHERE)
def create(
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Whose key it is; a label of metrics.")
    ],
    tenant: Annotated[
        str, typer.Option(metavar="CLASS", help="The class of keys that metrics count it in.")
    ] = api_keys.DEFAULT_TENANT,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="infer, read (metadata, metrics) or admin (everything); may be repeated. "
            "Default: infer.",
        ),
    ] = None,
    requests_per_second: Annotated[
        float | None, typer.Option(metavar="N", help="Requests over time, at most.")
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(metavar="N", help="Requests at once after a pause; by default a second's."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Requests not answered yet, at most.")
    ] = None,
    budget_usd_per_day: Annotated[
        float | None,
        typer.Option(metavar="USD", help="What may be charged in one day, by UTC."),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    **options: Any,
) -> None:
    """Make a key and print it. It is shown this once: only a digest of it is kept.

    Example: gearshift keys create acme --models models --requests-per-second 50

    Exit code: 0; 1 when the database cannot be used; 2 when a value makes no sense.
    """
    asked = {
        "name": name,
        "tenant": tenant,
        "scopes": scope or ["infer"],
        "requests_per_second": requests_per_second,
        "burst": burst,
        "concurrency": concurrency,
        "budget_usd_per_day": budget_usd_per_day,
    }
    try:
        key, text = api_keys.create(api_keys.wanted(asked), _now())
    except InvalidRequest as error:
        fail(str(error), BAD_VALUE)
    books = _ledger(options, config)
    try:
        books.insert(key)
    except NameTaken as error:
        fail(str(error), BAD_VALUE)
    except LedgerUnusable as error:
        fail(str(error), STORE_PROBLEM)
    if json:
        print_json({**key.as_json(), "key": text})
    else:
        typer.echo(text)
        typer.echo(f"key {key.name} ({key.id}): {', '.join(key.scopes)}; shown this once", err=True)


@keys.command("list")
@with_settings(*_WHERE)
def list_(*, json: JsonOption = False, config: ConfigOption = None, **options: Any) -> None:
    """List every key, with its limits and since when it is revoked.

    Exit code: 0; 1 when the database cannot be used.
    """
    try:
        found = _ledger(options, config).keys()
    except LedgerUnusable as error:
        fail(str(error), STORE_PROBLEM)
    if json:
        print_json({"keys": [key.as_json() for key in found]})
        return
    if not found:
        typer.echo("no keys: everybody who reaches the server may use it")
        return
    view = table(
        "name", "id", "tenant", "scopes", "requests/s", "burst", "at once", "USD/day", "created",
        "revoked", left=4,
    )  # fmt: skip
    for key in found:
        view.add_row(*_row(key))
    out().print(view)


@keys.command()
@with_settings(*_WHERE)
def revoke(*, name: Annotated[str, _NAME], config: ConfigOption = None, **options: Any) -> None:
    """Let nobody in by a key any more. The others stay in force, and the server stays closed.

    Exit code: 0; 1 when the database cannot be used; 2 when no key in use has this name.
    """
    try:
        found = _ledger(options, config).revoke(name, _now())
    except LedgerUnusable as error:
        fail(str(error), STORE_PROBLEM)
    if not found:
        fail(f"no key in use is named {name!r}", BAD_VALUE)
    typer.echo(f"revoked: {name}")


def _ledger(options: dict[str, Any], config: Any) -> Ledger:
    try:
        chosen = settings.load(options, config)
    except SettingsError as error:
        fail(str(error), BAD_VALUE)
    models, elsewhere = chosen.models, chosen.database is not None or chosen.state is not None
    if isinstance(models, Path) and not elsewhere and not models.is_dir():
        fail(f"{models}: no such store; name one with --models, or --database", BAD_VALUE)
    return Ledger(chosen.database, chosen.state_folder, "")


def _row(key: Key) -> list[str]:
    limits = key.limits
    figures = (
        limits.requests_per_second,
        limits.burst,
        limits.concurrency,
        limits.budget_usd_per_day,
    )
    shown = ["-" if figure is None else f"{figure:g}" for figure in figures]
    return [
        key.name,
        key.id,
        key.tenant,
        " ".join(key.scopes),
        *shown,
        key.created,
        key.revoked or "-",
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
