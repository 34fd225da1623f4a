"""The queue: leaving it, its order, deadlines, stopping, and what a snapshot says of it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from router.constraints import Constraints
from router.errors import DeadlinePassed, NotReady
from router.telemetry import OVERHEAD_START_MS
from tests.gateway.lane_rig import MAX_BATCH, Rig, assert_own, run
from tests.stores import write_variant


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_variant(tmp_path, "slow", "fp32", delay_ms=100, delay_after=MAX_BATCH + 1)
    return tmp_path


def test_who_withdraws_from_the_queue_is_not_run(models: Path) -> None:
    write_variant(models, "echo", "fp32", mirror=True)

    async def test(rig: Rig) -> None:
        await rig.busy()
        before, leaving, after = rig.submit(), rig.submit(2), rig.submit()
        assert rig.lanes.queued == 3
        rig.lanes.withdraw(leaving)
        rig.lanes.withdraw(leaving)  # once more changes nothing
        assert rig.lanes.queued == 2
        for ticket in (before, after):
            assert_own(ticket, await ticket.done)
        assert rig.batches[1:] == [("echo", "fp32", 2)]
        assert not leaving.done.done()

    run(models, test)


def test_who_withdraws_while_the_batch_runs_does_not_disturb_it(models: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.busy()
        leaving, staying = rig.submit(model="slow"), rig.submit(model="slow")
        while rig.lanes.queued:
            await asyncio.sleep(0.001)
        leaving.done.cancel()
        rig.lanes.withdraw(leaving)
        assert (await staying.done).batch_rows == 2
        assert rig.batches == [("slow", "fp32", 1), ("slow", "fp32", 2)]

    run(models, test)


def test_deadline_that_cannot_be_met_is_refused_unrun(models: Path) -> None:
    write_variant(models, "echo", "fp32", latency_ms_at_1=50, latency_ms_at_32=50)

    async def test(rig: Rig) -> None:
        await rig.busy()
        late = rig.submit(within_s=0.12)  # gone is a part, left is less than the 50 ms it takes
        soft = rig.submit(within_s=0.12, soft=True)
        easy = rig.submit()
        with pytest.raises(DeadlinePassed):
            await late.done
        await asyncio.gather(soft.done, easy.done)
        assert rig.batches[1:] == [("echo", "fp32", 2)]

    run(models, test)


def test_slack_that_shrank_takes_the_next_choice(models: Path) -> None:
    write_variant(models, "echo", "fp32", latency_ms_at_1=90, latency_ms_at_32=90)
    write_variant(models, "echo", "small", accuracy=0.9, latency_ms_at_1=1, latency_ms_at_32=1)

    async def test(rig: Rig) -> None:
        await rig.busy()
        hurried = rig.submit(1, ("fp32", "small"), within_s=0.15)
        patient = rig.submit(1, ("fp32", "small"), within_s=10)
        assert (await hurried.done).variant == "small"
        assert (await patient.done).variant == "fp32"

    run(models, test)


def test_the_most_urgent_goes_first(models: Path) -> None:
    for name in ("a", "b", "c"):
        write_variant(models, name, "fp32")

    async def test(rig: Rig) -> None:
        await rig.busy()
        tickets = [rig.submit(model="a"), rig.submit(model="b", within_s=9)]
        tickets.append(rig.submit(model="c", within_s=0.5))
        await asyncio.gather(*(ticket.done for ticket in tickets))
        # Who has no deadline waits no longer than somebody with a patience of a second.
        assert [model for model, _, _ in rig.batches[1:]] == ["c", "a", "b"]

    run(models, test)


def test_stop_refuses_what_is_queued_and_ends_the_threads(models: Path) -> None:
    async def test(rig: Rig) -> None:
        running = await rig.busy()
        waiting = rig.submit(model="slow")
        rig.lanes.refuse_queued()
        assert await asyncio.to_thread(rig.lanes.join, 10)
        assert (await running.done).variant == "fp32"
        with pytest.raises(NotReady):
            await waiting.done
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]

    run(models, test)


def test_what_waits_counts_as_ahead_of_what_comes(models: Path) -> None:
    write_variant(models, "echo", "fp32", latency_ms_at_1=10, latency_ms_at_32=320)

    async def test(rig: Rig) -> None:
        def estimate_ms() -> float:
            return rig.lanes.route("echo", Constraints(), 1).estimate_ms

        idle_ms = estimate_ms()
        assert idle_ms == pytest.approx(10 + OVERHEAD_START_MS)
        first = await rig.busy()
        tickets = [rig.submit(1), rig.submit(2), rig.submit(4)]
        # Behind 7 rows of 10 ms, and what is left of the 1 ms that the lane's batch should take.
        assert 70 <= estimate_ms() - idle_ms <= 71
        for ticket in tickets:
            rig.lanes.withdraw(ticket)
        await first.done
        assert rig.lanes.route("echo", Constraints(), 1).verdict == "accepted"
        assert not rig.lanes.queued

    run(models, test)


def test_what_is_due_later_does_not_count_as_ahead(models: Path) -> None:
    write_variant(models, "echo", "fp32", latency_ms_at_1=10, latency_ms_at_32=320)

    async def test(rig: Rig) -> None:
        await rig.busy()
        await asyncio.sleep(0.005)  # longer than the lane's batch should take
        tickets = [rig.submit(4) for _ in range(6)] + [rig.submit(within_s=0.3)]

        def ahead_ms(within_ms: float | None) -> float:
            decision = rig.lanes.route("echo", Constraints(max_latency_ms=within_ms), 1)
            assert decision.verdict == "accepted"
            return decision.estimate_ms - 10 - OVERHEAD_START_MS

        # Before the loop has turned, and after: what has just arrived is counted as well.
        for _ in range(2):
            assert ahead_ms(100) == pytest.approx(0, abs=0.1)  # a lane that is late is not free
            assert ahead_ms(500) == pytest.approx(10, abs=0.1)
            assert ahead_ms(60_000) == ahead_ms(None) == pytest.approx(250, abs=0.1)
            await asyncio.sleep(0.001)
        for ticket in tickets:
            rig.lanes.withdraw(ticket)

    run(models, test)


def test_who_finds_no_lane_free_is_known_to_queue(models: Path) -> None:
    async def test(rig: Rig) -> None:
        def queues() -> bool:
            return rig.lanes.route("slow", Constraints(), 1).queued

        assert not queues()
        first = rig.submit(model="slow")
        assert queues()  # behind the first, which no lane has taken yet
        while rig.lanes.queued:
            await asyncio.sleep(0.001)
        assert queues()  # behind the batch that runs
        await first.done
        assert not queues()

    run(models, test)
