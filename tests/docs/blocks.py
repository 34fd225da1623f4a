"""The fenced code blocks of a page, and the marks that stand before them.

A mark is an HTML comment on a line before a fence, so that readers do not see it:

    <!-- not run: reason -->     nobody runs the block
    <!-- output -->              the block is what the one before it writes
    <!-- fails: 2 -->            the block is to end with that exit status
    <!-- file: task.py -->       the block is a file of that name, for the blocks after it
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})([^\n`]*)$")
_MARK = re.compile(r"^ *<!-- (not run|output|fails|file)(?:: (.+?))? -->$")


@dataclass(frozen=True, slots=True)
class Block:
    """One code block.

    Attributes:
        line: of its first line of text, from 1, for messages.
        not_run: why it cannot be run; None where it is.
        is_output: it is what the block before it writes.
        fails: the exit status that it ends with, as it is to be.
        file: the name under which it is kept in the page's folder; it is not run then.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None = None
    is_output: bool = False
    fails: int = 0
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language})"


def blocks(page: Path) -> list[Block]:
    """Every block of a page, in order.

    Raises:
        ValueError: a fence that is not closed, or a mark without its reason or number.
    """
    found: list[Block] = []
    marks: dict[str, str] = {}
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if mark := _MARK.match(line):
            marks[mark[1]] = mark[2] or ""
        elif fence := _FENCE.match(line):
            start = number
            end = re.compile(rf"^ *{re.escape(fence[2])} *$")
            while number < len(lines) and not end.match(lines[number]):
                number += 1
            if number == len(lines):
                raise ValueError(f"{page}:{start}: a fence that is not closed")
            indented = len(fence[1])
            text = "".join(f"{one[indented:]}\n" for one in lines[start:number])
            found.append(_block(page, start + 1, fence[3], text, marks))
            marks = {}
            number += 1
        elif line.strip():
            marks = {}
    return found


def _block(page: Path, line: int, info: str, text: str, marks: dict[str, str]) -> Block:
    if marks.get("not run") == "" or not marks.get("fails", "1").isdigit():
        raise ValueError(f"{page}:{line}: a mark without its reason or exit status: {marks}")
    language = (info.split() or [""])[0]
    return Block(
        page,
        line,
        language,
        text,
        marks.get("not run"),
        "output" in marks,
        int(marks.get("fails", 0)),
        marks.get("file"),
    )
