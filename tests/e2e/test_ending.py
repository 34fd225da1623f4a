"""A stop takes no longer than `drain_seconds`, whatever hangs, and loses nothing without need."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import write_variant

DRAIN_S = 3.0
# What a busy machine may add before the process is seen to have ended: what hangs in these tests
# would take many times as long.
SLACK_S = 12.0
FOR_EVER_MS = 1000 * PATIENCE_S * 4


def test_stop_while_an_engine_hangs_in_loading(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32", delay_ms=FOR_EVER_MS)
    with Server(tmp_path, wait="/v2/health/live", drain_seconds=DRAIN_S) as server:
        began_s = time.monotonic()
        server.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - began_s < DRAIN_S + SLACK_S
        assert "the process ends without it" in server.log()
        assert "Traceback" not in server.log()


def test_stop_between_two_variants_does_not_load_the_next(tmp_path: Path) -> None:
    for number in range(20):
        write_variant(
            tmp_path, "echo", f"v{number}" if number else "fp32", delay_ms=500,
            accuracy=0.9 - number / 100,
        )  # fmt: skip
    with Server(tmp_path, wait="/v2/health/live", max_batch=2) as server:
        began_s = time.monotonic()
        server.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        # All of them take twenty seconds.
        assert time.monotonic() - began_s < 15
        assert "the process ends without it" not in server.log()


def test_one_deadline_for_requests_and_what_comes_after(tmp_path: Path) -> None:
    """A request outlasts its time, one waits behind it, and a connection is kept open."""
    write_variant(tmp_path, "echo", "fp32", delay_ms=FOR_EVER_MS, delay_after=2)
    with (
        Server(tmp_path, max_batch=1, drain_seconds=DRAIN_S) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        running = [pool.submit(server.infer) for _ in range(2)]
        server.await_busy(queued=1)
        began_s = time.monotonic()
        server.terminate()
        answers = [each.result() for each in running]
        assert [each.status_code for each in answers] == [503, 503]
        assert server.process.wait(PATIENCE_S) == 0
        assert DRAIN_S / 2 < time.monotonic() - began_s < DRAIN_S + SLACK_S


_HANGS = """
import time
from gateway.processes.ending import Ending
ending = Ending(0.1)
ending.begin()
time.sleep(60)
"""


def test_a_process_that_hangs_at_the_end_is_ended() -> None:
    began_s = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", _HANGS], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert ended.returncode == 1
    assert "did not end in time" in ended.stderr
    assert time.monotonic() - began_s < 30  # of the 60 for which it hangs


def test_workers_that_hang_in_loading_end_in_time_too(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32", delay_ms=FOR_EVER_MS)
    with Server(tmp_path, wait="/v2/health/live", workers=2, drain_seconds=DRAIN_S) as server:
        # The second has not opened the port yet; it is told to end all the same.
        supervisor = psutil.Process(server.process.pid)
        until(lambda: len(supervisor.children()) == 2, "both have started")
        began_s = time.monotonic()
        server.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - began_s < DRAIN_S + SLACK_S
