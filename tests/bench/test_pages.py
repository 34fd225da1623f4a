"""What benchmarks and drills write into pages."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from rich.table import Table

from tests.bench import pages
from tests.bench.__main__ import targets
from tests.drills.fuzz.__main__ import table as fuzzed
from tests.drills.fuzz.cases import Tally
from tests.drills.report import Check, passed, table

_SOMEBODY = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")


def test_a_run_is_told_with_day_commit_and_machine() -> None:
    told = pages.here()
    assert re.match(r"One run of 20\d\d-\d\d-\d\d, commit (unknown|[0-9a-f]{7,})", told)
    assert re.search(r"\d+ cores, \d+ GiB, .* Python 3\.\d+\.\d+; load average \d+\.\d", told)


def test_a_run_tells_whether_code_was_changed_since_its_commit(tmp_path: Path) -> None:
    assert pages.commit(tmp_path) == "commit unknown"
    for name in ("code.py", "page.md"):
        (tmp_path / name).write_text("one")
    for words in (["init", "-q"], ["add", "."], [*_SOMEBODY, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert re.fullmatch(r"commit [0-9a-f]{7,}", pages.commit(tmp_path))
    (tmp_path / "page.md").write_text("other")
    assert re.fullmatch(r"commit [0-9a-f]{7,}", pages.commit(tmp_path))
    (tmp_path / "code.py").write_text("other")
    assert re.fullmatch(r"commit [0-9a-f]{7,} and changes", pages.commit(tmp_path))


def test_a_page_without_an_end_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- written by make this -->\n\nold\n\nwhat people wrote\n")
    with pytest.raises(ValueError, match="end of make this"):
        pages.write(page, "make this", "new")
    assert "what people wrote" in page.read_text()


def test_only_a_whole_run_writes_its_page(tmp_path: Path) -> None:
    own, asked = tmp_path / "own.md", tmp_path / "asked.md"
    pages.keep(None, own, "make this", "short", whole=False)
    assert not own.exists()
    pages.keep(asked, own, "make this", "short", whole=False)
    assert "short" in asked.read_text() and not own.exists()
    pages.keep(None, own, "make this", "whole", whole=True)
    assert "whole" in own.read_text()


def test_a_terminals_table_in_markdown() -> None:
    view = Table(title="What", caption="Why.")
    view.add_column("name")
    view.add_column("ms")
    view.add_row("one", "1.5")
    told = pages.of_rich(view)
    assert told == "**What**\n\n| name | ms |\n| --- | --- |\n| one | 1.5 |\n\nWhy."


def test_a_target_that_is_missed_is_told() -> None:
    overhead = {
        "32": {
            "gateway, binary": {"ratio_to_starlette": 0.6},
            "gateway, JSON": {"ratio_to_starlette": 0.49},
        }
    }
    times_us = {"route, simple": 49.0, "route, refused": 90.0, "dispatch": 70.0}
    shown = targets(times_us, overhead, {"1": {"fp32": {"ratio": 0.89}}})
    assert [row[-1] for row in shown.rows] == ["met", "**missed**", "**missed**", "met"]


def test_a_drills_checks_and_its_table_agree() -> None:
    good = [Check("peak", "", "10/s"), Check("late", "0", "0", True)]
    assert passed(good) and "**missed**" not in table(good)
    bad = [*good, Check("failed", "0", "3", False)]
    assert not passed(bad)
    assert "| failed | 0 | 3 **missed** |" in table(bad)


def test_fuzzings_table_sums_up() -> None:
    tallies = {
        "json": Tally(Counter({"read": 3, "invalid-request": 1200}), 0.5, 2),
        "rest": Tally(Counter({"200": 7}), 0.25, 1, ["3: a 500"]),
    }
    told = fuzzed(tallies)
    assert "| json | 1,203 | invalid-request 1,200, read 3 | 500 | 2 | 0 |" in told
    assert "| rest | 7 | 200 7 | 250 | 1 | **1** |" in told
    assert "| **all** | 1,210 |  | 500 | 3 | **1** |" in told
    assert "| **all** | 0 |  | 0 | 0 | 0 |" in fuzzed({})
