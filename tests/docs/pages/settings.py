"""Settings: from `gateway.settings`, in the order and under the headings of the example file."""

from __future__ import annotations

import json
import re
from pathlib import Path

from gateway.lifecycle.reload import LIVE
from gateway.settings import Settings
from tests.docs.pages import table

EXAMPLE = Path(__file__).parents[3] / "deploy" / "gearshift.toml"

_LINE = re.compile(r"^(?:## (?P<heading>.+)|(?:# )?(?P<name>[a-z_]+) = (?P<value>.+))$")


def text() -> str:
    parts: list[tuple[str, list[tuple[str, str, str]]]] = []
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        if heading := found["heading"]:
            parts.append((heading, []))
        elif found["name"] in Settings.model_fields:
            parts[-1][1].append(_row(found["name"]))
    told = {row[0].split("`")[1] for _, rows in parts for row in rows}
    missing = set(Settings.model_fields) - told
    assert not missing, f"{EXAMPLE} does not have {sorted(missing)}"
    return _INTRODUCTION + "".join(
        f"\n## {heading}\n\n{table(('setting', 'default', 'what it says'), rows)}"
        for heading, rows in parts
        if rows
    )


def _row(name: str) -> tuple[str, str, str]:
    field = Settings.model_fields[name]
    own = "" if field.default_factory is not None else _value(field.default)
    live = " \\*" if name in LIVE else ""
    return f"`{name}`{live}", own, str(field.description)


def _value(default: object) -> str:
    if default is None or default == {}:
        return ""
    plain = default if isinstance(default, (bool, int, float)) else str(default)
    return f"`{json.dumps(plain)}`"


_INTRODUCTION = """# Settings

Each can stand in four places, and the first of these that has it counts: the command line, the
environment, the file that `--config` or `GEARSHIFT_CONFIG` names, the default.

| where | how `max_queue` is written |
|---|---|
| command line | `gearshift serve --max-queue 512` |
| environment | `GEARSHIFT_MAX_QUEUE=512` |
| TOML file | `max_queue = 512` |

A table, such as `model_weights`, is one in TOML and JSON elsewhere. An unknown setting and a value
that makes no sense end the command with exit code 2 and one line that names the setting, where it
came from and what was expected. `deploy/gearshift.toml` is a file with all of them. Those marked
\\* [change live](../how-to/change.md#settings-that-change-live).
"""
