"""Tables of figures come from their commands, between marks, with the day; or say why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BENCHMARKS = sorted((ROOT / "docs" / "benchmarks").glob("*.md"))
DRILLS = {"overload", "soak", "fuzz", "idle", "rollout"}

_MARK = re.compile(r"<!-- (written by|end of) (.*?) -->")
_NUMBER = r"\**[≥≤<>~+−-]{0,2} ?\d[\d,.]*\**( ?(%|ms|µs|s|MB|/s|×|of \d+))?\**"
# An interval, a second figure or a verdict may follow; a word makes it a sentence.
_FIGURE = re.compile(_NUMBER + r"( [\[(*/±].*)?")
_REASON = re.compile(r"<!-- by hand: \S.* -->")


def blocks(text: str) -> dict[str, str]:
    """What stands between marks, by command.

    Raises:
        ValueError: a mark has no partner, or the command has written before.
    """
    found: dict[str, str] = {}
    open_: re.Match[str] | None = None
    for mark in _MARK.finditer(text):
        if mark[1] == "written by":
            if open_ is not None:
                raise ValueError(f"{mark[0]} within {open_[0]}")
            open_ = mark
        elif open_ is None or open_[2] != mark[2] or mark[2] in found:
            raise ValueError(f"{mark[0]} ends nothing")
        else:
            found[mark[2]] = text[open_.end() : mark.start()]
            open_ = None
    if open_ is not None:
        raise ValueError(f"{open_[0]} has no end")
    return found


def loose(text: str) -> list[str]:
    """First lines of tables of figures that are neither between marks nor given a reason."""
    for inner in blocks(text).values():
        text = text.replace(inner, "\n")
    found = []
    before = ""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if not line.startswith("|"):
            before = line.strip() or before
        elif at and lines[at - 1].startswith("|"):
            continue
        else:
            rows = []
            for row in lines[at + 2 :]:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip() for cell in row.strip("|").split("|")])
            figures = any(_FIGURE.fullmatch(cell) for row in rows for cell in row)
            if figures and not _REASON.fullmatch(before):
                found.append(line)
    return found


def targets() -> set[str]:
    """What `make` can do."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))


@pytest.mark.parametrize("page", BENCHMARKS, ids=lambda page: page.name)
def test_tables_of_figures_are_written_by_commands(page: Path) -> None:
    assert loose(page.read_text(encoding="utf-8")) == []


def test_every_mark_names_a_target_and_every_bench_has_its_mark() -> None:
    known, written = targets(), set()
    for page in PAGES:
        for command, text in blocks(page.read_text(encoding="utf-8")).items():
            program, target = command.split(" ")[:2]
            assert (program, target) == ("make", target) and target in known, f"{page}: {command}"
            assert target not in written or "(" in command, f"{command} writes two pages"
            written.add(target)
            dated = re.search(r"\b(run of|Sampled on|^)\s*20\d\d-\d\d-\d\d\b", text, re.MULTILINE)
            assert dated or text.strip().startswith("Not written yet"), f"{page}: {command}: no day"
    benches = {name for name in known if re.match(r"bench($|-)", name)} - {"bench-tools"}
    assert benches | DRILLS == written


def test_a_table_that_nobody_wrote_is_found() -> None:
    table = "| what | ms |\n|---|---|\n| one | 1.5 |\n"
    marked = f"<!-- written by make x -->\n\n{table}\n<!-- end of make x -->\n"
    assert loose(f"Text.\n\n{table}") == ["| what | ms |"]
    assert loose(f"Text.\n\n{marked}\nMore.\n") == []
    assert loose(f"{marked}\n{table}") == ["| what | ms |"]
    assert loose(f"<!-- by hand: nothing repeats it -->\n\n{table}") == []
    assert loose("| command | what |\n|---|---|\n| `make x` | takes 3 minutes |\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "<!-- written by make x -->",
        "<!-- end of make x -->",
        "<!-- written by make x --><!-- written by make y --><!-- end of make y -->",
        "<!-- written by make x --><!-- end of make y -->",
    ],
)
def test_marks_come_in_pairs(text: str) -> None:
    with pytest.raises(ValueError, match="make"):
        blocks(text)
