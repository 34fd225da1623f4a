"""Faults of an engine: who is answered all the same, who is told, and what is left alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from gateway.execution.tickets import Ticket
from router.breaker import State, Terms
from router.errors import DeadlinePassed, EngineFailed, InvalidRequest, NotReady
from tests.gateway.lane_rig import MAX_BATCH, Rig, assert_own, run
from tests.stores import write_variant

# No backoff ends within a test that does not wait for it.
LONG = Terms(first_s=60.0)
BOTH = ("fp32", "int8")


@pytest.fixture
def fault(tmp_path: Path) -> Path:
    """The file that makes `fp32` of the model `echo` faulty."""
    return tmp_path / "fault"


@pytest.fixture
def models(tmp_path: Path, fault: Path) -> Path:
    store = tmp_path / "models"
    write_variant(store, "slow", "fp32", delay_ms=100, delay_after=MAX_BATCH + 1)
    write_variant(store, "echo", "fp32", accuracy=0.95, mirror=True, fault_file=str(fault))
    write_variant(store, "echo", "int8", accuracy=0.94, mirror=True)
    return store


def state(rig: Rig, variant: str = "fp32") -> State:
    return rig.lanes.breaker("echo", variant).state


def first_value(ticket: Ticket) -> float:
    return float(ticket.request.inputs["image"][0, 0])


@pytest.mark.parametrize("kind", ["raise", "nan", "shape"])
def test_what_failed_is_answered_by_another_variant(models: Path, fault: Path, kind: str) -> None:
    async def test(rig: Rig) -> None:
        fault.write_text(kind, encoding="ascii")
        for _ in range(5):
            ticket = rig.submit(2, BOTH)
            result = await ticket.done
            assert_own(ticket, result)
            assert result.variant == "int8"
        # Twice more, and then nobody was sent there any more.
        assert rig.told.failed == [("echo", "fp32", 1)] * LONG.failures
        assert state(rig) == "open"
        assert state(rig, "int8") == "closed"

    run(models, test, terms=LONG)


@pytest.mark.parametrize("kind", ["raise", "nan", "shape"])
def test_without_another_variant_its_caller_is_told(models: Path, fault: Path, kind: str) -> None:
    async def test(rig: Rig) -> None:
        fault.write_text(kind, encoding="ascii")
        for _ in range(LONG.failures):
            with pytest.raises(EngineFailed, match="echo/fp32: ") as told:
                await rig.submit().done
            assert told.value.variant == "fp32"
        with pytest.raises(NotReady):
            await rig.submit().done
        assert 59 < (rig.lanes.retry_after_s("echo") or 0) <= 60

    run(models, test, terms=LONG)


def test_a_request_whose_inputs_the_engine_does_not_bear_fails_alone(
    models: Path, fault: Path
) -> None:
    async def test(rig: Rig) -> None:
        await rig.busy()
        tickets = [rig.submit() for _ in range(MAX_BATCH)]
        fault.write_text(f"raise {first_value(tickets[2])}", encoding="ascii")
        for number, ticket in enumerate(tickets):
            if number == 2:
                with pytest.raises(EngineFailed, match="echo fails"):
                    await ticket.done
            else:
                assert_own(ticket, await ticket.done)
        assert rig.batches[1:] == [("echo", "fp32", MAX_BATCH - 1)]
        assert state(rig) == "closed"

    run(models, test, terms=LONG)


def test_requests_that_fail_by_themselves_open_no_breaker(models: Path, fault: Path) -> None:
    """However many come, one after another, and though no other variant answers them either."""

    async def test(rig: Rig) -> None:
        for _ in range(3 * LONG.failures):
            ticket = rig.submit()
            fault.write_text(f"raise {first_value(ticket)}", encoding="ascii")
            with pytest.raises(EngineFailed):
                await ticket.done
        assert state(rig) == "closed"

    run(models, test, terms=LONG)


def test_what_another_variant_answers_was_no_fault_of_the_request(
    models: Path, fault: Path
) -> None:
    """An engine that fails on all but zeros passes its own check; the other variant convicts it."""

    async def test(rig: Rig) -> None:
        for _ in range(LONG.failures):
            assert state(rig) == "closed"
            ticket = rig.submit(1, BOTH)
            fault.write_text(f"raise {first_value(ticket)}", encoding="ascii")
            assert (await ticket.done).variant == "int8"
        assert state(rig) == "open"

    run(models, test, terms=LONG)


def test_nan_fails_the_rows_that_have_it(models: Path, fault: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.busy()
        tickets = [rig.submit() for _ in range(MAX_BATCH)]
        fault.write_text(f"nan {first_value(tickets[1])}", encoding="ascii")
        with pytest.raises(EngineFailed, match="output 'logits' holds NaN"):
            await tickets[1].done
        for ticket in (tickets[0], *tickets[2:]):
            assert_own(ticket, await ticket.done)
        assert state(rig) == "closed"

    run(models, test, terms=LONG)


def test_nan_that_a_caller_sent_is_its_own(models: Path) -> None:
    """It is passed on, as the engine may know what to do with it; what it makes of it is told."""

    async def test(rig: Rig) -> None:
        for value in (np.nan, np.inf):
            for _ in range(2 * LONG.failures):
                ticket = rig.submit(1, BOTH)
                ticket.request.inputs["image"][:] = value
                if value == np.inf:  # which says something, and is answered as it is
                    assert_own(ticket, await ticket.done)
                    continue
                with pytest.raises(InvalidRequest, match=r"inputs\.image: expected finite numbers"):
                    await ticket.done
        assert state(rig) == "closed"
        assert {retried for _, _, retried in rig.told.failed} == {0}

    run(models, test, terms=LONG)


def test_who_has_no_time_for_a_second_run_is_told_of_the_first(models: Path, fault: Path) -> None:
    write_variant(
        models, "tight", "fp32", accuracy=0.95, latency_ms_at_1=1, latency_ms_at_32=1,
        fault_file=str(fault),
    )  # fmt: skip
    write_variant(models, "tight", "int8", accuracy=0.94, latency_ms_at_1=500, latency_ms_at_32=500)

    async def test(rig: Rig) -> None:
        fault.write_text("raise", encoding="ascii")
        with pytest.raises(EngineFailed, match="tight/fp32: echo fails"):
            await rig.submit(1, BOTH, model="tight", within_s=0.3).done
        # As told by the lanes; a caller may be told first that its deadline passed.
        assert rig.lanes.idle

    run(models, test, terms=LONG)


def test_a_second_failure_is_the_last(models: Path, fault: Path) -> None:
    write_variant(
        models, "echo", "small", accuracy=0.9, mirror=True, fault_file=str(fault)
    )  # fmt: skip

    async def test(rig: Rig) -> None:
        fault.write_text("raise", encoding="ascii")
        with pytest.raises(EngineFailed, match="echo/fp32: "):
            await rig.submit(1, ("fp32", "small", "int8")).done
        assert [variant for _, variant, _ in rig.told.failed] == ["fp32", "small"]

    run(models, test, terms=LONG)


def test_tried_again_by_one_batch_and_back_when_that_succeeds(models: Path, fault: Path) -> None:
    terms = Terms(first_s=0.2)

    async def test(rig: Rig) -> None:
        fault.write_text("raise", encoding="ascii")
        for _ in range(terms.failures):
            await rig.submit(1, BOTH).done
        assert state(rig) == "open"
        fault.unlink()
        variants = set()
        while state(rig) != "closed":
            variants.add((await rig.submit(1, BOTH).done).variant)
            await asyncio.sleep(0.01)
        assert variants == {"int8", "fp32"}
        assert len(rig.told.failed) == terms.failures

    run(models, test, terms=terms)


def test_those_behind_the_trial_wait_for_it(models: Path, fault: Path) -> None:
    """Nobody is refused because somebody else's batch is the one that tries."""
    write_variant(models, "only", "fp32", delay_ms=60, fault_file=str(fault))
    terms = Terms(first_s=0.2)

    async def test(rig: Rig) -> None:
        fault.write_text("raise", encoding="ascii")
        for _ in range(terms.failures):
            with pytest.raises(EngineFailed):
                await rig.submit(model="only").done
        fault.unlink()
        while rig.lanes.breaker("only", "fp32").state == "open":
            await asyncio.sleep(0.01)
        tickets = [rig.submit(MAX_BATCH, model="only") for _ in range(4)]
        await asyncio.gather(*(ticket.done for ticket in tickets))
        assert rig.lanes.breaker("only", "fp32").state == "closed"

    run(models, test, terms=terms, count=2)


def test_hanging_batch_runs_elsewhere_and_its_lane_comes_back(models: Path, fault: Path) -> None:
    async def test(rig: Rig) -> None:
        fault.write_text("hang", encoding="ascii")
        (program,) = rig.fleet.model("echo").loaded["fp32"].programs
        hangs = program._inner  # type: ignore[attr-defined]
        hung = rig.submit(1, BOTH)
        result = await hung.done
        assert_own(hung, result)
        assert (result.variant, result.failed) == ("int8", "fp32")
        assert state(rig) == "open"
        assert rig.told.lost == 1
        while rig.lanes.keeper.lost:
            await asyncio.sleep(0.01)
        other = rig.submit(1, ("int8",))
        assert_own(other, await other.done)
        assert rig.lanes.keeper.alive
        # Loaded anew: the old one is still in use.
        while program._inner is None:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        assert program._inner is not hangs  # type: ignore[attr-defined]
        fault.unlink()  # what was given up comes back, and changes nothing
        while [thread for thread in rig.lanes.keeper.left_behind if thread.is_alive()]:
            await asyncio.sleep(0.01)
        assert rig.batches == [("echo", "int8", 1)] * 2
        assert rig.lanes.idle

    run(models, test, terms=LONG, batch_timeout_s=0.3)


def test_too_many_hanging_threads_end_the_process_s_life(models: Path, fault: Path) -> None:
    async def test(rig: Rig) -> None:
        fault.write_text("hang", encoding="ascii")
        for _ in range(5):
            assert rig.lanes.keeper.alive
            with pytest.raises((EngineFailed, DeadlinePassed), match="no answer within"):
                await rig.submit().done
            rig.lanes.replaced("echo", "fp32")
            await asyncio.sleep(0.05)
        assert not rig.lanes.keeper.alive
        fault.unlink()

    run(models, test, terms=LONG, batch_timeout_s=0.1)
