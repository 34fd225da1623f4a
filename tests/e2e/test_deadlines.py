"""Deadlines are kept or end in 504, never in a late 200; what cannot fit is shed, low first.

One lane, and a batch that occupies it for longer than its card says, which the gateway cannot
foresee: until the test opens the gate. What was in time is for the server's own account to say.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.gate import Gate
from tests.e2e.harness import Server, until
from tests.stores import write_variant

SLOW_MS = 2000
QUICK_MS = 5
# Enough for one slow batch, not for two; the rest is room for a busy machine.
HURRY_MS = 1.5 * SLOW_MS


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def models(tmp_path: Path, gate: Gate) -> Path:
    models = tmp_path / "models"
    write_variant(models, "stalls", "fp32", latency_ms_at_1=QUICK_MS, **gate.echo)
    for name, accuracy, ms in (("fp32", 0.95, SLOW_MS), ("small", 0.90, QUICK_MS)):
        write_variant(
            models,
            "honest",
            name,
            accuracy=accuracy,
            latency_ms_at_1=ms,
            latency_ms_at_32=ms,
            **gate.echo,
        )
    return models


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    """A new one for each test: what the gateway has learnt is part of what is tested."""
    with Server(models, max_batch=2) as server:
        yield server


def within(ms: float, **more: str) -> dict[str, str]:
    return {"Gearshift-Max-Latency-Ms": str(ms), **more}


def is_expired(response: httpx.Response) -> bool:
    assert response.status_code == 504, response.text
    return bool(response.json()["code"] == "deadline-passed")


def stall(server: Server, pool: ThreadPoolExecutor) -> Future[httpx.Response]:
    """Occupy the lane, while the gate is shut."""
    running = pool.submit(server.infer, "stalls")
    server.await_busy()
    return running


def queued(
    server: Server, pool: ThreadPoolExecutor, model: str, headers: dict[str, str], for_ms: float
) -> Future[httpx.Response]:
    """Ask, and return once that has waited behind the stalled batch for so long."""
    waiting = pool.submit(server.infer, model, headers=headers)
    server.await_busy(queued=1)
    over_s = time.monotonic() + for_ms / 1000
    until(lambda: time.monotonic() > over_s, "it has waited")
    return waiting


def deadlines(server: Server, model: str, outcome: str) -> float:
    return server.metric("gearshift_deadlines_total", model=model, outcome=outcome)


def test_deadline_that_passes_in_the_queue(
    server: Server, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    with gate.shut():
        running = stall(server, pool)
        # Refused when it passes, not when the batch in front has ended; and never run.
        began_s = time.monotonic()
        assert is_expired(server.infer("stalls", headers=within(100)))
        assert time.monotonic() - began_s >= 0.1
        assert not running.done()
    assert running.result().status_code == 200
    server.await_idle()
    assert (server.batches(model="stalls"), server.rows(model="stalls")) == (1, 1)
    assert deadlines(server, "stalls", "missed") == 1
    assert server.metric("gearshift_requests_total", model="stalls", outcome="deadline-passed") == 1


def test_deadline_that_passes_while_the_batch_runs(server: Server, gate: Gate) -> None:
    with gate.shut():
        began_s = time.monotonic()
        assert is_expired(server.infer("stalls", headers=within(500)))
        assert time.monotonic() - began_s >= 0.5
    # The batch goes on, for nobody; the next one is answered.
    server.await_idle()
    assert server.batches(model="stalls") == 1
    assert server.infer("stalls").status_code == 200


def test_request_during_a_slow_batch(server: Server, gate: Gate, pool: ThreadPoolExecutor) -> None:
    with gate.shut():
        running = stall(server, pool)
        small = within(HURRY_MS, **{"Gearshift-Variant": "small"})
        waiting = queued(server, pool, "honest", small, 10 * QUICK_MS)
    assert waiting.result().status_code == 200
    assert deadlines(server, "honest", "kept") == 1
    assert running.result().status_code == 200


def test_slack_that_shrank_shifts_to_a_faster_variant(
    server: Server, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    with gate.shut():
        running = stall(server, pool)
        # On arrival there is time for `fp32`; behind the stalled batch there is not.
        waiting = queued(server, pool, "honest", within(HURRY_MS), 0.7 * SLOW_MS)
    response = waiting.result()
    assert response.status_code == 200
    assert deadlines(server, "honest", "kept") == 1
    assert response.headers["gearshift-variant"] == response.json()["model_version"] == "small"
    assert response.headers["gearshift-reason"].startswith("shifted-at-dispatch; ")
    assert float(response.headers["gearshift-accuracy"]) == 0.90
    assert running.result().status_code == 200
    assert server.batches(model="honest", variant="fp32") == 0


def test_shift_never_breaks_a_floor(server: Server, gate: Gate, pool: ThreadPoolExecutor) -> None:
    floor = {"Gearshift-Min-Accuracy": "0.93"}
    with gate.shut():
        running = stall(server, pool)
        waiting = queued(server, pool, "honest", within(HURRY_MS, **floor), 0.7 * SLOW_MS)
    assert is_expired(waiting.result())
    assert running.result().status_code == 200
    server.await_idle()
    assert server.batches(model="honest") == 0


def test_deadline_that_may_give_way_is_answered_late(
    server: Server, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    with gate.shut():
        running = stall(server, pool)
        relaxed = within(100, **{"Gearshift-Relax": "latency"})
        waiting = queued(server, pool, "stalls", relaxed, 100)
    response = waiting.result()
    assert response.status_code == 200
    assert response.headers["gearshift-relaxed"] == "latency"
    assert running.result().status_code == 200
    assert deadlines(server, "stalls", "relaxed") == 1


def test_what_would_fit_but_not_now_is_shed(
    server: Server, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    pinned = {"Gearshift-Variant": "fp32"}
    with gate.shut():
        running = [pool.submit(server.infer, "honest", headers=pinned)]
        server.await_busy()
        running += [pool.submit(server.infer, "honest", headers=pinned) for _ in range(4)]
        server.await_busy(queued=4)
        response = server.infer("honest", headers=within(HURRY_MS, **pinned))
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        problem = response.json()
        assert (problem["code"], problem["retryable"]) == ("overloaded", True)
        assert problem["retry_after_s"] > 0
        assert problem["nearest"]["max_latency_ms"] > HURRY_MS
    assert [one.result().status_code for one in running] == [200] * 5
    server.await_idle()
    # As it says: the same request fits when the load has gone.
    assert server.infer("honest", headers=within(HURRY_MS, **pinned)).status_code == 200


def test_low_priority_is_shed_first(models: Path, gate: Gate, pool: ThreadPoolExecutor) -> None:
    with Server(models, max_batch=2, max_queue=4) as server:

        def ask(priority: str) -> httpx.Response:
            return server.infer("stalls", headers={"Gearshift-Priority": priority})

        def enter(priority: str, queued: int) -> None:
            waiting.append(pool.submit(ask, priority))
            server.await_busy(queued)

        with gate.shut():
            waiting = [stall(server, pool)]
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
