"""Tables of figures come from their commands, between marks, and begin with the day, the commit and
the machine; or say why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench import pages

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The reference's numbers are defaults and limits.
MEASURED = [page for page in PAGES if "reference" not in page.parts]
DRILLS = {"overload", "soak", "fuzz", "idle", "rollout"}

_MARK = re.compile(r"<!-- (written by|end of) (.*?) -->")
_UNIT = (
    r"%|ns|µs|ms|s|min|h|[KMG]i?B|bytes|/s|x|×|points|USD|of \d+"
    r"|(req|requests?|rows?|images?|tokens?)(/s| a second)?"
)
_NUMBER = rf"\**(p\d[\d.]* )?[≥≤<>~+−-]{{0,2}} ?\d[\d,.]*\**( ?({_UNIT}))?\**"
# An interval, a second figure or a verdict may follow; a word makes it a sentence.
_FIGURE = re.compile(_NUMBER + r"( [\[(*/±].*)?")
_REASON = re.compile(r"<!-- by hand: \S.* -->")
_DAY = r"20\d\d-\d\d-\d\d"
# As tests/bench/pages.py writes it.
_HERE = re.compile(
    rf"One run of {_DAY}, commit (unknown|[0-9a-f]{{7,}})( and changes)?: .+, \d+ cores, \d+ GiB, "
    r".+; load average \d+\.\d when it began\."
)
_BEFORE = re.compile(
    rf"(Copied by hand from|Written by) a run of {_DAY}\b.*; "
    r"the next whole run of the command replaces it\."
)


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


def untold(text: str) -> str:
    """What a block lacks: whence its figures are, or the form of what its command writes."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("![")]
    first = lines[0] if lines else ""
    if first.startswith("Not written yet: "):
        return "" if len(lines) == 1 else "figures that nobody has written yet"
    if _BEFORE.fullmatch(first):
        return ""
    if not _HERE.match(first):
        return f"day, commit, machine and load, or a reason: {first[:80]!r}"
    # The commands write their tables with spaces.
    return "" if "|---" not in text else "a table as the command writes it"


def targets() -> set[str]:
    """What `make` can do."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))


@pytest.mark.parametrize("page", MEASURED, ids=lambda page: page.name)
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
            assert untold(text) == "", f"{page}: {command}"
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
    "cell",
    ["12", "**0.45**", "12 req/s", "0.45x", "1,234 requests", "p99 12 ms", "≥ 95 %", "436 MB",
     "2,702/s", "18 of 20", "96.88 [96.0, 97.6]", "1.00 ± 0.05"],
)  # fmt: skip
def test_a_figure_is_seen_with_its_unit(cell: str) -> None:
    assert loose(f"| what | |\n|---|---|\n| one | {cell} |\n") == ["| what | |"]


@pytest.mark.parametrize("cell", ["`make x`", "3 replicas of it", "int8", "p99", "v2 JSON", ""])
def test_what_is_no_figure_is_let_be(cell: str) -> None:
    assert loose(f"| what | |\n|---|---|\n| one | {cell} |\n") == []


def test_what_the_commands_write_of_a_run_is_enough() -> None:
    table = pages.table(("what", "ms"), [("one", "1.5")])
    assert untold(f"\n{pages.here()} 3 rounds.\n\n{table}") == ""
    assert untold(f"\n![A picture](one.svg)\n\n{pages.here()}\n\n{table}") == ""
    assert "table" in untold(f"\n{pages.here()}\n\n| what | ms |\n|---|---|\n| one | 1.5 |\n")


@pytest.mark.parametrize(
    ("first", "enough"),
    [
        ("One run of 2026-11-21: AMD EPYC, 2 cores, Python 3.11, three rounds.", False),
        ("One run of 2026-11-21, commit 1fb6edd: AMD EPYC, 2 cores, 24 GiB, Linux.", False),
        ("Sampled on 2026-11-22: what each thread runs.", False),
        ("| what | ms |", False),
        ("", False),
        ("Copied by hand from a run of 2026-11-21.", False),
        ("Copied by hand from a run; the next whole run of the command replaces it.", False),
        ("Copied by hand from a run of 2026-11-21; the next whole run of the command replaces it.",
         True),
        ("Written by a run of 2026-11-21 on two cores, before the command told its commit; "
         "the next whole run of the command replaces it.", True),
    ],
)  # fmt: skip
def test_a_block_says_whence_its_figures_are(first: str, enough: bool) -> None:
    assert (untold(f"\n{first}\n\n| what | ms |\n|---|---|\n| one | 1.5 |\n") == "") == enough


def test_what_is_not_written_yet_has_no_figures() -> None:
    assert untold("\nNot written yet: the next whole run does.\n") == ""
    assert untold("\nNot written yet: the next whole run does.\n\n| what | 1 |\n")


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
