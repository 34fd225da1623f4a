"""A Dockerfile as stages of instructions: as much of the format as the files beside this use."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

_FROM = re.compile(r"(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined; `line` is where it begins, from 1."""

    keyword: str
    value: str
    line: int


@dataclass(frozen=True)
class Stage:
    """What stands between one FROM and the next."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, keyword: str) -> list[str]:
        """The values of every instruction of that keyword, in order."""
        return [one.value for one in self.instructions if one.keyword == keyword]

    def only(self, keyword: str) -> str:
        """The value of the last one of that keyword, which is the one that counts.

        Raises:
            KeyError: there is none.
        """
        found = self.all(keyword)
        if not found:
            raise KeyError(f"{self.name}: no {keyword}")
        return found[-1]

    def pairs(self, keyword: str) -> dict[str, str]:
        """NAME=value of every ARG, ENV or LABEL; an ARG without a value has an empty one."""
        words = [word for value in self.all(keyword) for word in shlex.split(value)]
        return {name: value for name, _, value in (word.partition("=") for word in words)}


def read(path: Path) -> list[Stage]:
    """The stages of a file, in order; an ARG in front of the first one is put into its base.

    Raises:
        ValueError: an instruction stands before the first FROM and is no ARG.
    """
    outer: dict[str, str] = {}
    stages: list[Stage] = []
    for instruction in _instructions(path.read_text(encoding="utf-8")):
        if instruction.keyword == "FROM":
            found = _FROM.fullmatch(instruction.value)
            if found is None:
                raise ValueError(f"{path}:{instruction.line}: not a FROM: {instruction.value}")
            base = re.sub(r"\$\{(\w+)\}", lambda name: outer[name[1]], found[1])
            stages.append(Stage(found[2] or str(len(stages)), base, ()))
        elif stages:
            last = stages.pop()
            stages.append(Stage(last.name, last.base, (*last.instructions, instruction)))
        elif instruction.keyword == "ARG":
            name, _, value = instruction.value.partition("=")
            outer[name] = value
        else:
            raise ValueError(f"{path}:{instruction.line}: expected FROM or ARG first")
    return stages


def _instructions(text: str) -> list[Instruction]:
    found: list[Instruction] = []
    parts: list[str] = []
    begun = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun or number
        parts.append(line.rstrip("\\").strip())
        if not line.endswith("\\"):
            keyword, _, value = " ".join(parts).partition(" ")
            found.append(Instruction(keyword.upper(), value.strip(), begun))
            parts, begun = [], 0
    return found
