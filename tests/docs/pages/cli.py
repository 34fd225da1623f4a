"""The command line: from the commands themselves."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import typer

from gateway.cli import app
from gateway.cli.extras import GROUP
from gateway.settings import Settings
from tests.docs.pages import table


def text() -> str:
    return _INTRODUCTION + "".join(
        _section(name, command) for name, command in sorted(_commands(_group(app)).items())
    )


def _commands(group: Any, before: str = "gearshift") -> dict[str, Any]:
    """Every command by its whole name; those of other packages as they are themselves."""
    own = {entry.name: entry for entry in entry_points(group=GROUP)}
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= _commands(command, f"{before} {name}")
        elif name in own:
            single = typer.Typer(add_completion=False)
            single.command()(own[name].load())
            found[f"{before} {name}"] = typer.main.get_command(single)
        elif not command.hidden:
            found[f"{before} {name}"] = command
    return found


def _group(of: typer.Typer) -> Any:
    return typer.main.get_command(of)


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    options = [one for one in command.params if one.opts[0].startswith("-")]
    settings = [one for one in options if one.name in Settings.model_fields]
    own = [one for one in options if one not in settings]
    usage = " ".join([name, *(_metavar(one) for one in arguments), "[OPTIONS]" if options else ""])
    parts = [f"\n## {name}\n", f"`{usage.strip()}`\n", _help(command.help)]
    if rows := [(f"`{_metavar(one)}`", one.help or "") for one in arguments]:
        parts.append(table(("argument", "what it is"), rows))
    if rows := [(_spelt(one), _value(one), one.help or "") for one in own if one.name != "help"]:
        parts.append(table(("option", "value", "what it says"), rows))
    if len(settings) > 5:
        parts.append("Every [setting](settings.md) is an option besides.\n")
    elif settings:
        spelt = ", ".join(_spelt(one) for one in settings)
        parts.append(f"Of the [settings](settings.md) it takes {spelt}.\n")
    return "\n".join(parts)


def _help(text: str) -> str:
    """A command's help; its examples and exit codes are paragraphs of their own."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(paragraphs).replace("<", "&lt;") + "\n"


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _spelt(parameter: Any) -> str:
    return ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))


def _value(parameter: Any) -> str:
    if parameter.is_flag:
        return ""
    return f"`{parameter.metavar}`" if parameter.metavar else ""


_INTRODUCTION = """# Command line

`gearshift --help` and `gearshift COMMAND --help` say the same in a terminal. A store is a folder,
`MODELS/model/variant/`. Errors are one line on stderr. Where a command takes `--json` it prints
JSON for programs.

```console
$ gearshift --version
gearshift 0.1.0
```
"""
