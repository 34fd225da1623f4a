"""Pages of the reference that are made from the code. One file = one page there.

Each is `docs/reference/<name>.md` and has `text() -> str`, the whole page. `python -m
tests.docs.pages` writes them all, and a test holds them to what stands in `docs/`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "docs" / "reference"
NOTE = "<!-- Made from the code by `python -m tests.docs.pages`; edit there. -->\n"


def names() -> list[str]:
    """Every such page."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def text(name: str) -> str:
    """The page as it should be."""
    page: str = import_module(f"{__name__}.{name}").text()
    title, _, rest = page.partition("\n")
    return f"{title}\n\n{NOTE}{rest}".rstrip("\n") + "\n"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; what cells hold is escaped, and stands on one line."""
    lines = [list(headings)]
    lines += [["---"] * len(lines[0]), *([_cell(cell) for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
