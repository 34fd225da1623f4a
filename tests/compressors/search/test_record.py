"""The journal: nothing finished is lost, whatever happens while it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressors.errors import StoreError
from compressors.search.record import Journal, Rejected
from compressors.search.space import Candidate, Shape
from tests.compressors.search.worlds import World, limits, search

HEADING = {"task": "tiny", "max_drop": 0.01}


def filled(path: Path) -> Journal:
    journal = Journal(path, HEADING)
    record, _ = search(World(absent=("low-rank",)), limits(budget_s=300))
    for finding in record.findings:
        journal.add(finding)
    journal.add(Rejected("bf16", "this CPU has none", 0.5))
    journal.add(Rejected(Candidate(Shape("student"), 3, "int8"), "NaN"))
    return journal


def test_what_was_added_is_read_back(tmp_path: Path) -> None:
    before = filled(tmp_path / "search.jsonl")
    after = Journal(tmp_path / "search.jsonl", HEADING)
    assert after.record == before.record
    assert after.record.rejected("bf16") == Rejected("bf16", "this CPU has none", 0.5)


@given(st.integers(1, 400))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_write_that_was_cut_loses_that_line_alone(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "search.jsonl"
    path.unlink(missing_ok=True)
    whole = filled(path).record
    data = path.read_bytes()
    first = data.index(b"\n") + 1
    kept = data[: max(first, len(data) - cut)]
    path.write_bytes(kept)
    again = Journal(path, HEADING)
    count = kept.count(b"\n") - 1
    assert again.record.findings[:count] == whole.findings[:count]
    assert len(again.record.findings) <= count + 1  # a line that lacks its end alone is whole
    again.add(Rejected("int8", "after the cut"))
    assert Journal(path, HEADING).record == again.record


def test_a_journal_of_another_search_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    filled(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="of another search: max_drop differ"):
        Journal(path, {**HEADING, "max_drop": 0.02})
    assert path.read_bytes() == before


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    filled(path)
    lines = path.read_text().splitlines()
    lines[3] = lines[3][:20]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(StoreError, match="line 4: not a finding"):
        Journal(path, HEADING)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Journal(tmp_path / "file" / "search.jsonl", HEADING)
