"""`gearshift list`, `verify` and `pull`: what a store holds, whether it is whole, and a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import settings
from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail, out, print_json, table, warn
from gateway.lifecycle import catalog, signature
from gateway.lifecycle.catalog import Catalog, StoreUnusable
from gateway.lifecycle.signature import Check
from gateway.settings import Settings, SettingsError
from gateway.store import urls
from router.card import VariantCard
from router.menu import menu

ModelsArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODELS", help="The store: a folder of MODELS/model/variant/, or the URL of one."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="A TOML file of settings, such as the price of a lane."
    ),
]


def list_(models: ModelsArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the variants of a store with what was measured.

    Broken variants are listed too, with what is wrong with each. Cost is USD per million
    one-row requests, each run alone, at the price that `usd_per_lane_hour` sets.

    Exit code: 0; 1 when there is nothing that can be served.
    """
    operator = load_settings(config)
    found = read(models, operator)
    price = operator.usd_per_lane_hour
    rows = [_row(card, price) for entries in found.models.values() for card in _cards(entries)]
    broken = [_broken(problem) for problem in found.problems]
    if json:
        print_json({"variants": rows, "broken": broken})
    else:
        console = out()
        if rows:
            console.print(_table(rows))
        for problem in broken:
            console.print(
                f"broken: {problem['model']}/{problem['variant']}: {problem['why']}", soft_wrap=True
            )
    if not rows:
        fail(f"{models}: nothing here can be served", STORE_PROBLEM)


def verify(
    models: ModelsArgument,
    json: JsonOption = False,
    signed_by: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A public key in PEM: check who signed each variant too."
        ),
    ] = None,
) -> None:
    """Check every file of a store against its digest.

    Reads each variant as the server does: the SHA-256 of every file, the card, and whether the
    variants of a model can stand behind one endpoint. Names each file that differs. Of a store at a
    URL every byte is fetched, and nothing kept.

    Exit code: 0 when all is whole; 1 when anything is not; 2 for a key that is none.
    """
    try:
        check = signature.checker(signed_by)
    except SettingsError as error:
        fail(str(error), BAD_VALUE)
    found = read(models, load_settings(None), check, anew=True)
    whole = [f"{model}/{name}" for model, entries in found.models.items() for name in entries]
    broken = [_broken(problem) for problem in found.problems]
    if json:
        print_json({"whole": whole, "broken": broken})
    else:
        for name in whole:
            typer.echo(f"ok      {name}")
        for problem in broken:
            typer.echo(f"BROKEN  {problem['model']}/{problem['variant']}: {problem['why']}")
    if broken:
        fail(f"{models}: {len(broken)} of {len(broken) + len(whole)} variants are not whole")


def pull(models: ModelsArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Fetch what a store at a URL holds into the copy that `serve` uses, and check it.

    What is there already is not fetched again. Before a server starts, such as in an init
    container, so that its port opens at once.

    Exit code: 0; 1 when the store cannot be read, or a variant is not whole; 2 for a folder.
    """
    if not urls.is_url(models):
        fail(f"{models}: expected a URL, such as s3://bucket/models", BAD_VALUE)
    operator = load_settings(config)
    found = read(models, operator)
    folder = operator.model_copy(update={"models": models.rstrip("/")}).store
    whole = [f"{model}/{name}" for model, entries in found.models.items() for name in entries]
    broken = [_broken(problem) for problem in found.problems]
    if json:
        print_json({"folder": str(folder), "whole": whole, "broken": broken})
    else:
        typer.echo(f"{len(whole)} variants in {folder}")
    for problem in broken:
        warn(f"left out: {problem['model']}/{problem['variant']}: {problem['why']}")
    if broken:
        raise typer.Exit(STORE_PROBLEM)


def read(
    models: str,
    operator: Settings,
    check: Check = signature.anything,
    *,
    anew: bool = False,
) -> Catalog:
    """The catalogue of a store that holds at least something, be it broken; else exit 1, or 2 for
    what cannot be one.

    Args:
        models: a folder, or a URL, which is copied first.
        anew: fetch everything at a URL, and keep nothing.
    """
    try:
        if not urls.is_url(models):
            found = catalog.read(Path(models), check)
            return found if found.problems else catalog.usable(Path(models))
        # Here, so that a command on a folder does not wait for the packages of an object store.
        from gateway.store import source

        if not anew:
            return source.read(models, operator, check)
        with source.fetched(models, operator, check) as found:
            return found
    except SettingsError as error:
        fail(str(error), BAD_VALUE)
    except StoreUnusable as error:
        fail(str(error), STORE_PROBLEM)


def load_settings(config: Path | None) -> Settings:
    """The settings of file and environment; exit 2 when one of them is not usable."""
    try:
        return settings.load(config=config)
    except SettingsError as error:
        fail(str(error), BAD_VALUE)


def _cards(entries: Any) -> list[VariantCard]:
    """The reference first, then by name."""
    cards = [entry.card for entry in entries.values()]
    return sorted(cards, key=lambda card: (card.variant != card.reference, card.variant))


def _row(card: VariantCard, usd_per_lane_hour: float) -> dict[str, Any]:
    (offer,) = menu([card], percentile=50, usd_per_lane_hour=usd_per_lane_hour).offers
    return {
        "model": card.model,
        "variant": card.variant,
        "reference": card.variant == card.reference,
        "precision": card.precision,
        "engine": card.engine.name,
        "metric": card.task.metric,
        "accuracy": card.accuracy.value,
        "accuracy_low": card.accuracy.low,
        "accuracy_high": card.accuracy.high,
        "p50_ms": card.latency[0].p50_ms,
        "p99_ms": card.latency[0].p99_ms,
        "cost_usd_per_million": offer.cost_usd_per_million(1),
        "bytes_on_disk": card.bytes_on_disk,
        "resident_bytes": card.resident_bytes,
    }


def _table(rows: list[dict[str, Any]]) -> Any:
    view = table(
        "model", "variant", "engine", "precision", "accuracy % [95 %]", "p50 / p99 ms", "USD / M",
        "disk MB", "memory MB", left=4,
    )  # fmt: skip
    view.caption = "Time of one row on one thread. USD / M: per million one-row requests."
    view.caption_justify = "left"
    last = ""
    for row in rows:
        if last and row["model"] != last:
            view.add_section()
        view.add_row(
            row["model"] if row["model"] != last else "",
            row["variant"] + (" (reference)" if row["reference"] else ""),
            row["engine"],
            row["precision"],
            f"{100 * row['accuracy']:.2f} "
            f"[{100 * row['accuracy_low']:.1f}, {100 * row['accuracy_high']:.1f}]",
            f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f}",
            f"{row['cost_usd_per_million']:.3g}",
            f"{row['bytes_on_disk'] / 1e6:.2f}",
            f"{row['resident_bytes'] / 1e6:.1f}",
        )
        last = row["model"]
    return view


def _broken(problem: str) -> dict[str, str]:
    # The catalogue's own form: model/variant: why; a name holds neither a slash nor a colon.
    name, why = problem.split(": ", 1)
    model, variant = name.split("/", 1)
    return {"model": model, "variant": variant, "why": why}
