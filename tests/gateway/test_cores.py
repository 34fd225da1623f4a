"""Which cores a process may use, and how workers share them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.processes import cores
from gateway.processes.cores import divide, usable_cores


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores and no quota; hardware thread n and n + 4 are one physical core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_QUOTA_FILE", Path("/nonexistent"))
    monkeypatch.setattr(usable_cores, "__defaults__", (Path("/nonexistent"),))
    monkeypatch.setattr(cores, "_place", lambda core: (0, core % 4, core))


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_no_core_is_given_twice_and_none_is_left_over(eight: None, workers: int) -> None:
    del eight
    shares = divide(workers)
    given = [core for share in shares for core in share.mask]
    assert sorted(given) == list(range(8))
    sizes = [share.usable for share in shares]
    assert sizes == [len(share.mask) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_threads_of_one_core_stay_together(eight: None) -> None:
    del eight
    assert [sorted(share.mask) for share in divide(4)] == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_more_workers_than_cores_are_refused(eight: None) -> None:
    del eight
    with pytest.raises(ValueError, match="at most 8"):
        divide(9)


def test_a_quota_is_divided_too(
    eight: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del eight
    quota = tmp_path / "cpu.max"
    quota.write_text("300000 100000\n")
    monkeypatch.setattr(usable_cores, "__defaults__", (quota,))
    shares = divide(2)
    assert [len(share.mask) for share in shares] == [4, 4]
    assert sorted(share.usable for share in shares) == [1, 2]
    with pytest.raises(ValueError, match="at most 3"):
        divide(4)


def test_a_system_that_binds_nothing_to_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(usable_cores, "__defaults__", (Path("/nonexistent"),))
    assert [(share.mask, share.usable) for share in divide(2)] == [(frozenset(), 2)] * 2
