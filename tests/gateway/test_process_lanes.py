"""Lanes that are processes: the same answers, and what becomes of a batch whose process is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import psutil
import pytest

from gateway import engines, hosts
from gateway.engines import NUMPY_TYPES, EngineError, Tensor
from gateway.execution.arena import Arena, end_of
from gateway.hosts import LaneLost
from gateway.lifecycle.fleet import warm_up
from router.breaker import Terms
from router.card import CARD_FILE, TensorSpec, VariantCard
from router.errors import EngineFailed
from tests.e2e.harness import until
from tests.gateway.lane_rig import MAX_BATCH, PATIENCE_S, Rig, assert_own, run
from tests.stores import write_variant

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


def lane_processes() -> list[psutil.Process]:
    """Those of this process, in the order in which they were started."""
    children = psutil.Process().children()
    return sorted(
        (child for child in children if "gateway.execution.lane_process" in child.cmdline()),
        key=lambda child: (child.create_time(), child.pid),
    )


TENSORS: list[Tensor] = [
    *(
        np.arange(6).reshape(2, 3).astype(kind)
        for kind in NUMPY_TYPES.values()
        if not kind.hasobject
    ),
    np.array([[b"", b"ab"], [b"\xff\0", b"c" * 100]], dtype=object),
    np.zeros((0, 3), np.float32),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.full((1 << 19, 4), 3, np.int32),  # more than the arena has at first
]


def test_tensors_of_every_type_lie_in_an_arena_as_they_were() -> None:
    mine = Arena()
    theirs = Arena(os.dup(mine.file))
    sent = {str(number): tensor for number, tensor in enumerate(TENSORS)}
    for _ in range(2):
        placed = mine.put(sent)
        got = theirs.get(placed, copied=False)
        for name, tensor in sent.items():
            assert got[name].dtype == tensor.dtype
            np.testing.assert_array_equal(got[name], tensor)
        # And back, behind them, from the other side.
        back = mine.get(theirs.put(got, after=end_of(placed)), copied=True)
        for name, tensor in sent.items():
            np.testing.assert_array_equal(back[name], tensor)
        assert os.fstat(mine.file).st_blocks * 512 > 16 << 20
        mine.release(end_of(placed))
        assert os.fstat(mine.file).st_blocks * 512 <= 8 << 20
    assert any(tensor.dtype == ml_dtypes.bfloat16 for tensor in TENSORS)


def test_what_is_laid_out_in_an_arena_is_not_copied() -> None:
    mine = Arena()
    theirs = Arena(os.dup(mine.file))
    room = mine.room([("a", np.dtype("<f4"), (2, 3)), ("b", np.dtype("<i8"), (2, 1))])
    room["a"][:], room["b"][:] = 1.5, 7
    placed = mine.put({"b": room["b"], "a": room["a"]})
    room["a"][0, 0] = 9.0  # the very memory that the other side sees
    got = theirs.get(placed, copied=False)
    assert got["a"].tolist() == [[9.0, 1.5, 1.5], [1.5, 1.5, 1.5]]
    assert got["b"].tolist() == [[7], [7]]
    # Later tensors of these names are others.
    assert mine.get(mine.put({"a": np.zeros(2)}), copied=True)["a"].tolist() == [0.0, 0.0]


def test_batches_of_many_callers_and_lengths(models: Path) -> None:
    free = TensorSpec(name="image", datatype="FP32", shape=(-1, -1))
    write_variant(models, "free", "fp32", inputs=(free,), mirror=True)

    async def test(rig: Rig) -> None:
        await rig.busy()
        tickets = [rig.submit(rows) for rows in (1, 2, 1, 3, 1, 4, 2, 2 * MAX_BATCH + 1)]
        tickets += [rig.submit(1, model="free", length=length) for length in (3, 5, 3, 100_000)]
        for ticket in tickets:
            assert_own(ticket, await ticket.done)

    run(models, test, kind="process")


def test_an_engine_s_own_words_come_back(models: Path, fault: Path) -> None:
    write_variant(models, "broken", "fp32", fail_load=True)
    host = hosts.open_one("process", 0)
    try:
        folder = models / "broken" / "fp32"
        card = VariantCard.model_validate_json((folder / CARD_FILE).read_bytes())
        with pytest.raises(EngineError, match="echo refuses to load"):
            host.load(folder, card, threads=1, trusted=False)
        folder = models / "echo" / "fp32"
        card = VariantCard.model_validate_json((folder / CARD_FILE).read_bytes())
        program = host.load(folder, card, threads=1, trusted=False)
        assert program.kernels() == {"fp32": 1}
        warm_up(program, card, MAX_BATCH)
        fault.write_text("raise", encoding="ascii")
        with pytest.raises(EngineError, match="echo fails, as fault asks") as told:
            warm_up(program, card, MAX_BATCH)
        assert not isinstance(told.value, LaneLost)
        program.close()
        program.close()
        with pytest.raises(EngineError, match="closed"):
            warm_up(program, card, 1)
    finally:
        host.close()
        host.close()
    assert not lane_processes()


def test_a_process_killed_in_mid_batch_loses_nobody(models: Path) -> None:
    async def test(rig: Rig) -> None:
        running = [rig.submit(1, ("fp32",), model="slow") for _ in range(4)]
        while rig.lanes.busy < 2:
            await asyncio.sleep(0.001)
        killed = lane_processes()[0]
        killed.kill()
        running += [rig.submit(1, BOTH) for _ in range(8)]
        results = [await ticket.done for ticket in running]
        for ticket, result in zip(running[4:], results[4:], strict=True):
            assert_own(ticket, result)
        while rig.lanes.keeper.lost:
            await asyncio.sleep(0.01)
        # Two processes again, and both serve.
        assert killed not in lane_processes()
        assert len(lane_processes()) == 2
        more = [rig.submit(model="slow") for _ in range(2)]
        one, two = [await ticket.done for ticket in more]
        assert abs(one.started_s - two.started_s) < 0.09
        assert rig.told.lost == 1
        assert sum(rows for _, _, rows in rig.batches) == 14

    run(models, test, kind="process", count=2, terms=LONG)


def test_one_killed_while_it_was_idle_is_noticed_by_the_next_batch(models: Path) -> None:
    async def test(rig: Rig) -> None:
        lane_processes()[0].kill()
        for _ in range(3):
            ticket = rig.submit()
            assert_own(ticket, await ticket.done)
        assert rig.told.lost == 1
        assert rig.lanes.breaker("echo", "fp32").state == "closed"

    run(models, test, kind="process", terms=LONG)


def test_a_request_that_kills_its_process_kills_it_for_itself_alone(
    models: Path, fault: Path
) -> None:
    async def test(rig: Rig) -> None:
        await rig.busy()
        tickets = [rig.submit() for _ in range(MAX_BATCH)]
        poison = float(tickets[1].request.inputs["image"][0, 0])
        fault.write_text(f"exit {poison}", encoding="ascii")
        for ticket in (tickets[0], *tickets[2:]):
            assert_own(ticket, await ticket.done)
        with pytest.raises(EngineFailed, match="ended by SIGKILL, and another one after it"):
            await tickets[1].done
        # Once with all of them, once by itself.
        assert rig.told.lost == 2

    run(models, test, kind="process", terms=LONG)


def test_a_variant_that_kills_its_process_is_left_alone(models: Path, fault: Path) -> None:
    async def test(rig: Rig) -> None:
        fault.write_text("exit", encoding="ascii")
        for _ in range(3):
            ticket = rig.submit(1, BOTH)
            result = await ticket.done
            assert_own(ticket, result)
            assert result.variant == "int8"
        assert rig.lanes.breaker("echo", "fp32").state == "open"
        # In its batch, and when the lane was restored: then it was not run any more.
        assert len(lane_processes()) == 1

    run(models, test, kind="process", terms=LONG)


def test_a_hanging_process_is_killed_and_its_requests_run_elsewhere(
    models: Path, fault: Path
) -> None:
    async def test(rig: Rig) -> None:
        before = lane_processes()
        fault.write_text("hang", encoding="ascii")
        hung = rig.submit(1, BOTH)
        assert (await hung.done).variant == "int8"
        assert rig.lanes.breaker("echo", "fp32").state == "open"
        while rig.lanes.keeper.lost:
            await asyncio.sleep(0.01)
        (after,) = lane_processes()
        assert after not in before
        other = rig.submit(1, ("int8",))
        assert_own(other, await other.done)
        assert not [thread for thread in rig.lanes.keeper.left_behind if thread.is_alive()]

    run(models, test, kind="process", terms=LONG, batch_timeout_s=0.5)


def test_a_variant_that_cannot_be_loaded_again_keeps_no_other_from_serving(
    models: Path,
) -> None:
    async def test(rig: Rig) -> None:
        (models / "echo" / "fp32" / "echo.json").write_text('{"fail_load": true}', encoding="ascii")
        lane_processes()[0].kill()
        for _ in range(3):
            ticket = rig.submit(1, BOTH)
            result = await ticket.done
            assert_own(ticket, result)
            assert result.variant == "int8"

    run(models, test, kind="process", terms=LONG)


@pytest.mark.parametrize("fault_kind", ["seize", ""])
def test_no_process_outlives_a_gateway_that_was_killed(
    models: Path, fault: Path, fault_kind: str
) -> None:
    """Not even one whose engine hangs and lets no other thread run."""
    code = (
        "import os, sys, threading\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from gateway import hosts\n"
        "from router.card import VariantCard\n"
        "folder = Path(sys.argv[1])\n"
        "card = VariantCard.model_validate_json((folder / 'card.json').read_bytes())\n"
        "host = hosts.open_one('process', 0)\n"
        "program = host.load(folder, card, threads=1, trusted=False)\n"
        "print(host.child._process.pid, flush=True)\n"
        "program.infer({'image': np.zeros((1, 4), np.float32)})\n"
        "threading.Event().wait()\n"
    )
    if fault_kind:
        fault.write_text(fault_kind, encoding="ascii")
    folder = models / "echo" / "fp32"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    # Signals to the whole group are the gateway's to answer.
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGINT)
    with pytest.raises(psutil.TimeoutExpired):
        child.wait(0.2)
    parent.kill()
    parent.wait(PATIENCE_S)
    parent.stdout.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "it ends")


def test_kinds_are_found_by_their_files() -> None:
    assert hosts.names() == ["process", "thread"]
    with pytest.raises(ValueError, match="there are process, thread"):
        hosts.open_one("container", 0)
    assert engines.names()
