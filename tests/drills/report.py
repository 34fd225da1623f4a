"""What a drill looked at, as a table of docs/benchmarks/drills.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench import pages

PAGE = Path("docs/benchmarks/drills.md")


class Check(NamedTuple):
    """What was looked at, what it had to be, and what it was.

    Attributes:
        aim: empty where it is only told.
        good: whether the drill may pass with it.
    """

    what: str
    aim: str
    found: str
    good: bool = True


def passed(checks: Sequence[Check]) -> bool:
    """Whether all of them are good."""
    return all(check.good for check in checks)


def table(checks: Sequence[Check]) -> str:
    """One row a check; those that failed are said to."""
    rows = [
        (what, aim, found if good else f"{found} **missed**") for what, aim, found, good in checks
    ]
    return pages.table(("", "aim", "found"), rows)
