"""The supervisor where no worker can be kept running."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.journal import Journal
from gateway.metrics import Metrics
from gateway.processes import cores, worker_process
from gateway.processes.cores import Share
from gateway.processes.ports import reserve
from gateway.processes.workers import Supervisor
from gateway.service import Service
from gateway.settings import Settings, SettingsError
from tests.stores import write_variant

_DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
_FAILS = "import sys; sys.exit(2)"


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    # Any machine has two cores here; nothing is bound to them.
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(cores, "divide", lambda _: [Share(frozenset(), 1)] * 2)
    chosen = Settings(models=tmp_path, port=0, workers=2)
    return Supervisor(chosen, {}, None, "warning", lambda _: None)


@pytest.mark.parametrize(("does", "code", "ends"), [(_DIES, 1, 5), (_FAILS, 2, 0)])
def test_it_gives_up(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    does: str, code: int, ends: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(worker_process, "_COMMAND", (sys.executable, "-c", does))
    assert supervisor.run() == code
    told = [record.getMessage() for record in caplog.records]
    assert sum("worker 0 ended (SIGKILL)" in each for each in told) == ends
    assert any("giving up" in each for each in told) == bool(ends)


def test_ports_that_the_workers_share_are_bound_before_any_of_them_starts(tmp_path: Path) -> None:
    taken = reserve("127.0.0.1", 0)
    try:
        port = taken.getsockname()[1]
        again = reserve("127.0.0.1", port)  # nobody listens: a worker may be down
        again.close()
    finally:
        taken.close()
    with pytest.raises(SettingsError, match=r"workers: expected at most \d+, .*, got 1024"):
        Supervisor(
            Settings(models=tmp_path, port=0, workers=1024), {}, None, "warning", lambda _: None
        )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_memory_limit_is_for_all_workers_together(tmp_path: Path, workers: int) -> None:
    write_variant(tmp_path, "echo", "fp32", resident_bytes=4000)
    chosen = Settings(models=tmp_path, lanes=1, workers=workers, memory_limit_mb=0.006)
    if workers == 1:
        Service(chosen, Journal(Metrics()))
        return
    with pytest.raises(SettingsError, match=r"at least 0.008, .* on 2 lanes, got 0.006"):
        Service(chosen, Journal(Metrics()))
