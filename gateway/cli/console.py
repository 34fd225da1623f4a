"""What every command prints with: one line for an error, tables that fit, JSON that parses."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

STORE_PROBLEM = 1
BAD_VALUE = 2
UNSATISFIABLE = 3

# A file or a pipe has no width of its own, and a table cut at 80 columns loses what it says.
_WIDTH_WITHOUT_TERMINAL = 180


def fail(message: str, code: int = STORE_PROBLEM) -> NoReturn:
    """Say what is wrong in one line on stderr and exit with `code`."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def warn(message: str) -> None:
    """Say in one line on stderr what the user should know, and go on."""
    typer.echo(f"warning: {' '.join(message.split())}", err=True)


def out() -> Console:
    """The console of stdout. Text is printed as it is: names and reasons are no markup."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(width=width, markup=False, highlight=False, soft_wrap=False)


def print_json(body: Any) -> None:
    """`body` as JSON on stdout, for programs."""
    typer.echo(json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False))


def table(*headings: str, title: str | None = None, left: int = 1) -> Table:
    """An empty table; the first `left` columns hold text, the others figures."""
    view = Table(title=title, title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        view.add_column(heading, justify="left" if index < left else "right", overflow="fold")
    return view
