"""The command line. One file = one command or two that belong together; see `gearshift --help`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from gateway.cli import extras
from gateway.cli.decide import decide
from gateway.cli.demo import demo
from gateway.cli.keys import keys
from gateway.cli.plan import plan
from gateway.cli.serve import serve
from gateway.cli.show import show
from gateway.cli.sign import sign
from gateway.cli.simulate import simulate
from gateway.cli.store import list_, pull, verify

app = typer.Typer(
    name="gearshift",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gearshift {version('gearshift')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Serve a model in several measured variants, and choose among them request by request.

    A store is a folder, MODELS/model/variant/. Build one, look at it, serve it:

    - gearshift compress digits --out models
    - gearshift list models
    - gearshift decide models digits --max-latency-ms 5 --min-accuracy 99%
    - gearshift serve --models models

    Or all of it at once: gearshift demo. The --help of each command says its exit codes.
    """


app.command(rich_help_panel="Start here")(demo)
extras.register(app)
app.command("list", rich_help_panel="Look at a store")(list_)
app.command(rich_help_panel="Look at a store")(show)
app.command(rich_help_panel="Look at a store")(verify)
app.command(rich_help_panel="Look at a store")(decide)
app.command(rich_help_panel="Serve")(pull)
app.command(rich_help_panel="Serve")(sign)
app.command(rich_help_panel="Plan")(simulate)
app.command(rich_help_panel="Plan")(plan)
app.command(rich_help_panel="Serve")(serve)
app.add_typer(keys, name="keys", rich_help_panel="Serve")


def main() -> None:
    """Run the command line."""
    app()
