"""`gearshift sign`: sign the variants of a store, so that a server can tell whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail
from gateway.cli.store import ModelsArgument
from gateway.lifecycle import catalog, signature
from gateway.lifecycle.catalog import StoreUnusable
from gateway.settings import SettingsError
from gateway.store import urls


def sign(
    models: ModelsArgument,
    key: Annotated[
        Path,
        typer.Option(
            "--key", metavar="FILE", help="The private key: elliptic-curve, in PEM, no password."
        ),
    ],
) -> None:
    """Sign every whole variant of a store with OpenSSF model-signing; needs the extra `signing`.

    The signature is written into the variant's folder as model.sig. What is not whole is not
    signed, and named. Serve with --verify-signatures PUBLIC_KEY to load signed variants alone.

    Example, keys first: openssl ecparam -name prime256v1 -genkey -noout -out private.pem &&
    openssl ec -in private.pem -pubout -out public.pem && gearshift sign models --key private.pem

    Exit code: 0 when all are signed; 1 when anything is not; 2 for a key that is none.
    """
    if urls.is_url(models):
        fail(f"{models}: expected a folder; sign the variants before they are put there", BAD_VALUE)
    try:
        found = catalog.read(Path(models))
        for name, entries in found.models.items():
            for variant, entry in entries.items():
                signature.sign(entry.folder, key)
                typer.echo(f"signed  {name}/{variant}")
    except SettingsError as error:
        fail(str(error), BAD_VALUE)
    except StoreUnusable as error:
        fail(str(error), STORE_PROBLEM)
    except OSError as error:
        fail(f"{models}: cannot be written: {error.strerror}", STORE_PROBLEM)
    for problem in found.problems:
        typer.echo(f"BROKEN  {problem}")
    if found.problems or not found.models:
        fail(f"{models}: {len(found.problems)} variants are not whole, and not signed")
