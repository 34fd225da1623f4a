"""A memory limit, on a real server: what is loaded follows the demand, and no request is lost."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import write_variant

MB = 1_000_000
BEST = {"Gearshift-Optimize": "accuracy"}  # wants fp32
FLOOR = {"Gearshift-Optimize": "latency", "Gearshift-Min-Accuracy": "0.915"}  # wants int8
FAST = {"Gearshift-Optimize": "latency"}  # wants small
HOLDS_TWO = {"memory_limit_mb": 4, "residency_seconds": 0.3}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Three variants of 2 MB each, as fast as their cards say: what is seen counts for more."""
    for variant, accuracy, ms in (("fp32", 0.95, 8), ("int8", 0.93, 4), ("small", 0.90, 1)):
        write_variant(
            tmp_path, "echo", variant, accuracy=accuracy, latency_ms_at_1=ms,
            latency_ms_at_32=8 * ms, delay_ms=ms, resident_bytes=2 * MB,
        )  # fmt: skip
    return tmp_path


class Traffic:
    """Answers, as they come in, to requests that are sent one after another all the while."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response] = []
        self.stop = threading.Event()

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)

    def variants(self, since: int) -> set[str]:
        return {answer.headers["gearshift-variant"] for answer in self.answers[since:]}


@contextmanager
def traffic(server: Server, *wishes: dict[str, str]) -> Iterator[Traffic]:
    """Requests with each of these headers in turns, in the background."""
    made = Traffic()

    def send() -> None:
        for headers in itertools.cycle(wishes):
            if made.stop.is_set():
                return
            made.answers.append(server.infer(headers=headers))
            time.sleep(0.003)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield made
    finally:
        made.stop.set()
        thread.join(PATIENCE_S)


def loaded(server: Server) -> set[str]:
    """What is loaded; the server is ready and within the limit whenever anybody looks."""
    assert server.client.get("/v2/health/ready").status_code == 200
    assert server.metric("gearshift_loaded_bytes") <= 4 * MB
    return {
        variant
        for variant in ("fp32", "int8", "small")
        if server.metric("gearshift_variant_ready", variant=variant)
    }


def changes(server: Server) -> tuple[float, float]:
    return (
        server.metric("gearshift_variant_loads_total"),
        server.metric("gearshift_variant_evictions_total"),
    )


def test_what_is_loaded_follows_the_demand_and_no_request_is_lost(models: Path) -> None:
    with Server(models, max_batch=4, **HOLDS_TWO) as server:
        assert loaded(server) == {"fp32", "int8"}
        assert "echo: 2 of 3 serve: fp32, int8" in server.log()
        with traffic(server, BEST, FAST) as sent:
            until(lambda: loaded(server) == {"fp32", "small"}, "small replaces int8")
            settled = len(sent.answers)
            until(lambda: len(sent.answers) > settled + 20, "more is answered")
        assert sent.statuses.keys() == {200}
        assert sent.variants(settled + 2) == {"fp32", "small"}
        state = server.client.get("/v2/models/echo/versions/int8/ready")
        assert state.status_code == 503
        assert "echo/int8 is evicted: the memory limit" in state.json()["detail"]
        assert "evicted" in server.client.get("/console/state").text
        with traffic(server, BEST, FLOOR) as sent:
            until(lambda: loaded(server) == {"fp32", "int8"}, "int8 comes back")
        assert sent.statuses.keys() == {200}
        assert changes(server) == (4, 2)


def test_a_steady_mixture_makes_nothing_flap(models: Path) -> None:
    mixture = [BEST, FAST] * 3 + [FLOOR]
    with Server(models, max_batch=4, **HOLDS_TWO) as server, traffic(server, *mixture) as sent:
        until(lambda: loaded(server) == {"fp32", "small"}, "the most wanted are loaded")
        before = changes(server)
        give_up_s = time.monotonic() + 4  # thirteen looks, and more than four stays
        while time.monotonic() < give_up_s:
            assert loaded(server) == {"fp32", "small"}
            time.sleep(0.1)
        assert changes(server) == before
        assert sent.statuses.keys() == {200}


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Three variants of 2 MB each, which take 400 ms to warm up for batches of four."""
    for variant in ("fp32", "int8", "small"):
        write_variant(
            tmp_path, "echo", variant, latency_ms_at_1=100, latency_ms_at_32=400, delay_ms=100,
            resident_bytes=2 * MB,
        )  # fmt: skip
    return tmp_path


def test_a_request_that_only_an_evicted_variant_may_answer_waits_for_it_by_its_deadline(
    slow: Path,
) -> None:
    with Server(slow, max_batch=4, memory_limit_mb=4, residency_seconds=0.5) as server:
        # There is no time for a load, so it is told at once when to ask again.
        (gone,) = {"fp32", "int8", "small"} - loaded(server)
        hurried = server.infer(version=gone, headers={"Gearshift-Max-Latency-Ms": "350"})
        assert (hurried.status_code, hurried.json()["code"]) == (503, "not-ready")
        assert hurried.json()["retryable"] is True
        assert int(hurried.headers["retry-after"]) >= 1
        assert hurried.json()["retry_after_s"] >= 1
        # There is time, or as much as it takes: it is answered when the variant is warm.
        (gone,) = {"fp32", "int8", "small"} - loaded(server)
        patient = server.infer(version=gone, headers={"Gearshift-Max-Latency-Ms": "20000"})
        assert (patient.status_code, patient.headers["gearshift-variant"]) == (200, gone)
        assert len(loaded(server)) == 2
        (gone,) = {"fp32", "int8", "small"} - loaded(server)
        assert server.infer(version=gone).headers["gearshift-variant"] == gone
        assert server.metric("gearshift_queued_requests") == 0
        # A decision alone runs nothing and is no demand.
        (gone,) = {"fp32", "int8", "small"} - loaded(server)
        for _ in range(500):
            pinned = {"Gearshift-Variant": gone}
            decided = server.client.post("/v2/models/echo/decide", headers=pinned)
            assert decided.json()["verdict"] == "not-ready"
        time.sleep(2.5)
        assert gone not in loaded(server)


def test_a_request_whose_deadline_passes_while_it_waits_for_a_load(models: Path) -> None:
    with Server(models, max_batch=1, memory_limit_mb=4, residency_seconds=60) as server:
        (gone,) = {"fp32", "int8", "small"} - loaded(server)
        late = server.infer(version=gone, headers={"Gearshift-Max-Latency-Ms": "1000"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline-passed")
        assert server.metric("gearshift_queued_requests") == 0


def test_a_limit_that_holds_nothing_is_refused_at_once(models: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "serve", "--models", str(models), "--port", "0",
         "--lanes", "2", "--memory-limit-mb", "3.5"],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert finished.returncode == 2
    message = " ".join(finished.stderr.split())
    assert (
        "memory_limit_mb: expected at least 4, which one variant of every model takes on 2 lanes, "
        "got 3.5" in message
    )
    assert "Traceback" not in message
