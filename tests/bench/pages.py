"""Benchmarks write their tables into the docs, between marks; the words around are people's."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from compressors import machine

ROOT = Path(__file__).parents[2]


def here() -> str:
    """What a page says of a run, in one line: day, commit, machine, and what else it was doing.

    To be asked when the run begins: the commit is the checkout's, and the load is that of others.
    """
    found = machine.describe()
    return (
        f"One run of {datetime.now(UTC):%Y-%m-%d}, {commit(ROOT)}: "
        f"{found.cpu}, {found.cores} cores, "
        f"{found.memory_bytes / 2**30:.0f} GiB, {found.system}, Python "
        f"{platform.python_version()}; load average {os.getloadavg()[0]:.1f} when it began."
    )


def commit(checkout: Path) -> str:
    """The commit that is checked out, and whether code or settings were changed since."""
    name = _git(checkout, "rev-parse", "--short", "HEAD").stdout.strip()
    if not name:
        return "commit unknown"
    changed = _git(checkout, "diff", "--quiet", "HEAD", "--", "*.py", "*.toml").returncode
    return f"commit {name}{' and changes' if changed else ''}"


def _git(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True)
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", "")


def write(file: Path, command: str, text: str) -> None:
    """Put `text` between the marks of `command` in `file`; they are added at its end where there
    are none.

    Raises:
        ValueError: the file has the first mark and not the second behind it.
    """
    begin, end = marks(command)
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n".lstrip()
    before, _, rest = old.partition(begin)
    _, ended, after = rest.partition(end)
    if not ended:
        raise ValueError(f"{file}: no {end!r} follows {begin!r}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


def keep(asked: Path | None, page: Path, command: str, text: str, *, whole: bool) -> None:
    """Write the block of a run into the page that was asked for, or else, if it was a whole run,
    into the command's own, `page`; and say so."""
    if asked is None and not whole:
        print(f"{page} is left as it is: not a whole run")
        return
    write(asked or page, command, text)
    print(f"table in {asked or page}")


def marks(command: str) -> tuple[str, str]:
    """What stands before and behind all that the command wrote."""
    return f"<!-- written by {command} -->", f"<!-- end of {command} -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def of_rich(view: Table) -> str:
    """A terminal's table in Markdown: its title, its cells, its caption."""
    head = [str(column.header) for column in view.columns]
    cells = [[str(cell) for cell in column.cells] for column in view.columns]
    rows = list(zip(*cells, strict=True))
    parts = [f"**{view.title}**", table(head, rows).rstrip(), str(view.caption or "")]
    return "\n\n".join(part for part in parts if part)
