"""Benchmarks write their tables into the docs, between marks; the words around are people's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write(file: Path, command: str, text: str) -> None:
    """Put `text` between the marks of `command` in `file`; they are added at its end where there
    are none."""
    begin, end = f"<!-- written by {command} -->", f"<!-- end of {command} -->"
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    after = rest.partition(end)[2]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
