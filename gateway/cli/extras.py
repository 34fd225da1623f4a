"""Commands of other packages, found by the entry point group `gearshift.commands`.

None of them is imported before it runs: what builds variants needs torch, which a server that only
serves does without, and whose import would make every other command wait.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import typer

from gateway.cli.console import STORE_PROBLEM, fail

GROUP = "gearshift.commands"


def register(app: typer.Typer) -> None:
    """Add every such command to `app`, also one whose packages are not installed."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        app.command(
            entry.name,
            help=_summary(entry),
            rich_help_panel="Build",
            # Everything behind the name is its own, `--help` too.
            add_help_option=False,
            context_settings={
                "allow_extra_args": True,
                "ignore_unknown_options": True,
                "allow_interspersed_args": False,
            },
        )(_runner(entry))


def _runner(entry: EntryPoint) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        try:
            function = entry.load()
        except ImportError as error:
            fail(f"`{entry.name}` needs packages that are missing ({error}): {_remedy(entry)}")
        except Exception as error:
            fail(f"`{entry.name}` ({entry.value}) cannot be loaded: {error!r}", STORE_PROBLEM)
        own = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        own.command()(function)
        own(args=context.args, prog_name=context.command_path)

    return command


def _remedy(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "its package"
    extras = (entry.dist.metadata.get_all("Provides-Extra") or []) if entry.dist else []
    return f"pip install '{package}[{entry.name}]'" if entry.name in extras else f"see {package}"


def _summary(entry: EntryPoint) -> str:
    """The first line of the function's docstring, read from its source and not by importing it."""
    package, *inner = entry.module.split(".")
    spec = find_spec(package)  # of the package alone: for a module in it, it would be imported
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            source = Path(folder, *inner).with_suffix(".py").read_text(encoding="utf-8")
            body = ast.parse(source).body
        except (OSError, ValueError, SyntaxError):
            continue  # what is wrong with it is told when it is run, not by `--help`
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
                return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""
