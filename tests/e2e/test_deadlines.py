"""Deadlines are kept or end in 504, never in a late 200; what cannot fit is shed, low first.

One lane, and variants that are slower than their cards say: the batch that occupies the lane takes
`SLOW_MS`, which the gateway cannot foresee before it has seen it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import Server
from tests.stores import write_variant

SLOW_MS = 600
QUICK_MS = 5
# Enough for one slow batch, not for two; the rest is room for a busy machine.
HURRY_MS = 1.5 * SLOW_MS


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_stalling(models, "stalls")
    for name, accuracy, ms in (("fp32", 0.95, SLOW_MS), ("small", 0.90, QUICK_MS)):
        write_variant(
            models,
            "honest",
            name,
            accuracy=accuracy,
            latency_ms_at_1=ms,
            latency_ms_at_32=ms,
            delay_ms=ms,
            delay_after=3,
        )
    return models


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    """A new one for each test: what the gateway has learnt is part of what is tested."""
    with Server(models, max_batch=2) as server:
        yield server


def write_stalling(models: Path, model: str) -> None:
    """Says 5 ms, takes 600 once it is warm: a machine that has stalled."""
    write_variant(models, model, "fp32", latency_ms_at_1=QUICK_MS, delay_ms=SLOW_MS, delay_after=3)


def within(ms: float, **more: str) -> dict[str, str]:
    return {"Gearshift-Max-Latency-Ms": str(ms), **more}


def timed(server: Server, model: str, headers: dict[str, str]) -> tuple[httpx.Response, float]:
    began_s = time.monotonic()
    response = server.infer(model, headers=headers)
    return response, (time.monotonic() - began_s) * 1000


def is_expired(response: httpx.Response) -> bool:
    problem = response.json()
    return (response.status_code, problem["code"]) == (504, "deadline-passed")


def stall(server: Server, pool: ThreadPoolExecutor, model: str) -> Future[httpx.Response]:
    """Occupy the lane with a batch that takes `SLOW_MS`."""
    running = pool.submit(server.infer, model)
    server.await_busy()
    return running


def test_deadline_that_passes_in_the_queue(server: Server, pool: ThreadPoolExecutor) -> None:
    running = stall(server, pool, "stalls")
    # Refused when it passes, not when the batch in front has ended; and never run.
    response, took_ms = timed(server, "stalls", within(100))
    assert is_expired(response)
    assert 100 <= took_ms < SLOW_MS / 2
    assert not running.done()
    assert running.result().status_code == 200
    server.await_idle()
    assert (server.batches(model="stalls"), server.rows(model="stalls")) == (1, 1)
    assert server.metric("gearshift_deadlines_total", model="stalls", outcome="missed") == 1
    assert server.metric("gearshift_requests_total", model="stalls", outcome="deadline-passed") == 1


def test_deadline_that_passes_while_the_batch_runs(server: Server) -> None:
    response, took_ms = timed(server, "stalls", within(100))
    assert is_expired(response)
    assert 100 <= took_ms < SLOW_MS / 2
    # The batch goes on, for nobody; the next one is answered.
    server.await_idle()
    assert server.batches(model="stalls") == 1
    assert server.infer("stalls").status_code == 200


def test_request_during_a_slow_batch(server: Server, pool: ThreadPoolExecutor) -> None:
    running = stall(server, pool, "stalls")
    response, took_ms = timed(
        server, "honest", within(2 * SLOW_MS, **{"Gearshift-Variant": "small"})
    )
    assert response.status_code == 200
    assert took_ms < 2 * SLOW_MS
    assert running.result().status_code == 200


def test_slack_that_shrank_shifts_to_a_faster_variant(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    running = stall(server, pool, "stalls")
    # On arrival there is time for `fp32`; behind the stalled batch there is not.
    response, took_ms = timed(server, "honest", within(HURRY_MS))
    assert response.status_code == 200
    assert took_ms < 2 * SLOW_MS
    assert response.headers["gearshift-variant"] == response.json()["model_version"] == "small"
    assert response.headers["gearshift-reason"].startswith("shifted-at-dispatch; ")
    assert float(response.headers["gearshift-accuracy"]) == 0.90
    assert running.result().status_code == 200
    assert server.batches(model="honest", variant="fp32") == 0


def test_shift_never_breaks_a_floor(server: Server, pool: ThreadPoolExecutor) -> None:
    running = stall(server, pool, "stalls")
    floor = {"Gearshift-Min-Accuracy": "0.93"}
    response, took_ms = timed(server, "honest", within(HURRY_MS, **floor))
    assert is_expired(response)
    assert took_ms < 2 * SLOW_MS
    assert running.result().status_code == 200
    server.await_idle()
    assert server.batches(model="honest", variant="fp32") == 0


def test_deadline_that_may_give_way_is_answered_late(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    running = stall(server, pool, "stalls")
    response, took_ms = timed(server, "stalls", within(100, **{"Gearshift-Relax": "latency"}))
    assert response.status_code == 200
    assert took_ms > 100
    assert response.headers["gearshift-relaxed"] == "latency"
    assert running.result().status_code == 200
    assert server.metric("gearshift_deadlines_total", model="stalls", outcome="relaxed") == 1


def test_what_would_fit_but_not_now_is_shed(server: Server, pool: ThreadPoolExecutor) -> None:
    pinned = {"Gearshift-Variant": "fp32"}
    running = [pool.submit(server.infer, "honest", headers=pinned)]
    server.await_busy()
    running += [pool.submit(server.infer, "honest", headers=pinned) for _ in range(4)]
    server.await_busy(queued=4)
    response, took_ms = timed(server, "honest", within(HURRY_MS, **pinned))
    assert response.status_code == 429
    assert took_ms < SLOW_MS
    assert int(response.headers["retry-after"]) >= 1
    problem = response.json()
    assert (problem["code"], problem["retryable"]) == ("overloaded", True)
    assert problem["retry_after_s"] > 0
    assert problem["nearest"]["max_latency_ms"] > HURRY_MS
    assert [one.result().status_code for one in running] == [200] * 5
    server.await_idle()
    # As it says: the same request fits when the load has gone.
    assert server.infer("honest", headers=within(HURRY_MS, **pinned)).status_code == 200


def test_low_priority_is_shed_first(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    write_stalling(tmp_path, "stalls")
    with Server(tmp_path, max_batch=2, max_queue=4) as server:
        waiting = [stall(server, pool, "stalls")]

        def ask(priority: str) -> httpx.Response:
            return server.infer("stalls", headers={"Gearshift-Priority": priority})

        def enter(priority: str, queued: int) -> None:
            waiting.append(pool.submit(ask, priority))
            server.await_busy(queued)

        enter("low", 1)
        enter("low", 2)
        assert ask("low").status_code == 429  # low may fill half of the queue
        enter("normal", 3)
        refused = ask("normal")  # and normal all but a tenth
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        enter("high", 4)
        assert ask("high").status_code == 429
        assert [one.result().status_code for one in waiting] == [200] * 5
        assert server.metric("gearshift_requests_total", outcome="overloaded") == 3
