"""What a search has found out so far: a journal of findings, one line each, on disk.

A finding is appended and synced before the next one is looked for, so that killing the search at
any moment loses the finding in hand and no other. A last line that was cut short is dropped when
the journal is read. The first line says what the journal is of: another task, other data or other
settings make another journal, and this one is left alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compressors.errors import StoreError
from compressors.search.frontier import Point
from compressors.search.space import Candidate, Shape


@dataclass(frozen=True)
class Measured:
    """A shape in one arithmetic, untrained: what it costs to run, whatever its weights.

    Attributes:
        parameters: of the network; two shapes of a family with as many are the same.
        drop: of the float network on validation, before any training; None for a shape of the
            student, whose weights are random.
    """

    shape: Shape
    arithmetic: str
    objective: float
    spread: float
    seconds: float
    parameters: int
    drop: float | None


@dataclass(frozen=True)
class Evaluated:
    """A candidate, trained and executed: its drop on the validation split, with its 95 %
    interval, and its objective. `engine` is False where the float network itself was scored, which
    is cheaper and says the same of the training; then the objective is the measured shape's.
    `yardstick` is what the reference cost in the same run, 0 where nothing was timed."""

    candidate: Candidate
    engine: bool
    metric: float
    drop: float
    drop_low: float
    drop_high: float
    objective: float
    spread: float
    seconds: float
    yardstick: float = 0.0

    @property
    def point(self) -> Point:
        return Point(
            self.candidate.name,
            self.objective,
            self.spread,
            self.drop,
            self.drop_low,
            self.drop_high,
        )


@dataclass(frozen=True)
class Rejected:
    """A shape, arithmetic or candidate that is not pursued, and why."""

    what: Shape | Candidate | str
    reason: str
    seconds: float = 0.0


Finding = Measured | Evaluated | Rejected


@dataclass(frozen=True)
class Record:
    """Everything found, in order."""

    findings: tuple[Finding, ...] = ()

    def __add__(self, finding: Finding) -> Record:
        return Record((*self.findings, finding))

    @property
    def seconds(self) -> float:
        """Spent on all findings."""
        return sum(finding.seconds for finding in self.findings)

    def measured(self, shape: Shape, arithmetic: str) -> Measured | None:
        """What is known of running `shape` in `arithmetic`."""
        return next(
            (
                f
                for f in self.findings
                if isinstance(f, Measured) and (f.shape, f.arithmetic) == (shape, arithmetic)
            ),
            None,
        )

    def evaluated(self) -> Iterator[Evaluated]:
        """Every evaluation."""
        return (f for f in self.findings if isinstance(f, Evaluated))

    def rejected(self, what: Shape | Candidate | str) -> Rejected | None:
        """Why `what` is not pursued; None where it is."""
        return next((f for f in self.findings if isinstance(f, Rejected) and f.what == what), None)


class Journal:
    """The record on disk."""

    def __init__(self, path: Path, heading: dict[str, Any]) -> None:
        """Open the journal at `path`, or begin it.

        Raises:
            StoreError: it is of another search, or cannot be read or written.
        """
        self._path = path
        self.record = Record()
        try:
            if path.exists() and (lines := path.read_text(encoding="utf-8").splitlines()):
                self.record = _read(path, lines, heading)
                self._rewrite(heading)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._rewrite(heading)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error

    def add(self, finding: Finding) -> None:
        """Append one finding; it is on disk when this returns.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(finding))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from error
        self.record = self.record + finding

    def _rewrite(self, heading: dict[str, Any]) -> None:
        # Whole or not at all: a cut last line goes, and nothing else can.
        draft = self._path.with_name(f"{self._path.name}.draft")
        text = json.dumps(heading) + "\n" + "".join(map(_line, self.record.findings))
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)


def _read(path: Path, lines: list[str], heading: dict[str, Any]) -> Record:
    found = json.loads(lines[0])
    if found != heading:
        other = sorted(key for key in {*found, *heading} if found.get(key) != heading.get(key))
        raise StoreError(
            f"{path} is of another search: {', '.join(other)} differ; move it away, or search "
            "with what it was begun with"
        )
    findings = []
    for number, line in enumerate(lines[1:], 2):
        try:
            findings.append(_finding(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break  # the process was killed while it wrote this line
            raise StoreError(f"{path}, line {number}: not a finding: {error}") from error
    return Record(tuple(findings))


def _line(finding: Finding) -> str:
    return json.dumps({"kind": type(finding).__name__.lower(), **asdict(finding)}) + "\n"


def _finding(data: dict[str, Any]) -> Finding:
    kind = data.pop("kind")
    if kind == "measured":
        return replace(Measured(**data), shape=Shape(**data["shape"]))
    if kind == "evaluated":
        return replace(Evaluated(**data), candidate=_candidate(data["candidate"]))
    if kind == "rejected":
        what = data["what"]
        if isinstance(what, dict):
            what = Shape(**what) if "family" in what else _candidate(what)
        return replace(Rejected(**data), what=what)
    raise ValueError(f"unknown kind {kind!r}")


def _candidate(data: dict[str, Any]) -> Candidate:
    return Candidate(Shape(**data["shape"]), data["epochs"], data["arithmetic"])
