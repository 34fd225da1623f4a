"""The loop that carries plans out: what is wanted comes, what leaves is drained first."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import hosts
from gateway.engines import Tensor, Tensors
from gateway.execution.lease import Loaded
from gateway.lifecycle import catalog, change, residency, turnover
from gateway.lifecycle.demand import Demand
from gateway.lifecycle.fleet import Fleet
from gateway.lifecycle.residency import Residency
from gateway.metrics import Metrics
from gateway.settings import Settings, SettingsError
from router.constraints import Constraints, Floor
from router.errors import InvalidRequest, NotReady
from router.rollout import AS_IT_LIES
from router.route import Policy
from tests.gateway.lane_rig import MAX_BATCH, PATIENCE_S, Rig, assert_own
from tests.gateway.lane_rig import run as run_lanes
from tests.stores import write_variant

MB = 1_000_000
EVERY_S = 0.05
STAY_S = 3 * EVERY_S
SMALL = Constraints(optimize="latency")  # wants `small`, any other may answer
BEST = Constraints(optimize="accuracy")  # wants `fp32`, any other may answer


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`echo`: three variants of 2 MB each."""
    for variant, accuracy, ms in (("fp32", 0.95, 2.0), ("int8", 0.93, 1.0), ("small", 0.9, 0.2)):
        write_echo(
            tmp_path, variant, accuracy=accuracy, latency_ms_at_1=ms, latency_ms_at_32=9 * ms
        )
    return tmp_path


def write_echo(models: Path, variant: str, **more: Any) -> None:
    write_variant(models, "echo", variant, **({"resident_bytes": 2 * MB} | more))


class Kept:
    """A residency, its fleet, and what the limit has made of it so far."""

    def __init__(self, models: Path, **more: Any) -> None:
        self.settings = Settings(
            models=models, **({"lanes": 1, "max_batch": 1, "residency_seconds": EVERY_S} | more)
        )
        self.fleet = Fleet.of(
            catalog.usable(models), percentile=99, usd_per_lane_hour=0.05, max_batch=1
        )
        self.metrics = Metrics()
        self.residency = Residency(self.fleet, self.settings, Policy(), self.metrics)
        self.in_use: set[tuple[str, str]] = set()

    @property
    def ready(self) -> set[str]:
        return set(self.fleet.model("echo").ready)

    def changes(self, what: str) -> float:
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == f"gearshift_variant_{what}_total"
        )

    def want(self, constraints: Constraints, times: int = 1) -> None:
        for _ in range(times):
            self.residency.wanted("echo", constraints, 1)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.residency.loaded_bytes <= (self.settings.memory_limit_mb or 1e9) * MB
            await asyncio.sleep(0.005)


def run(models: Path, test: Callable[[Kept], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        kept = Kept(models, **settings)
        await kept.residency.start(
            lambda model, variant: (model, variant) in kept.in_use, [hosts.open_one("thread", 0)]
        )
        try:
            await asyncio.wait_for(test(kept), PATIENCE_S)
        finally:
            await kept.residency.stop(PATIENCE_S)
            kept.fleet.close()

    asyncio.run(main())


def test_demand_is_a_rate_that_halves_when_nobody_asks() -> None:
    demand = Demand(half_life_s=10.0)
    key = ("echo", "fp32")
    assert demand.rate(key, 0.0) == 0
    for tick in range(1000):
        demand.count(key, tick * 0.5)
    steady = demand.rate(key, 499.5)
    assert steady == pytest.approx(2.0, rel=0.05)  # it was asked for twice a second
    assert demand.rate(key, 509.5) == pytest.approx(steady / 2)
    demand.count(("echo", "alone"), 499.5, weight=10.0)
    assert demand.rate(("echo", "alone"), 499.5) == pytest.approx(10 * 0.0693, rel=0.01)


def test_without_a_limit_everything_is_loaded_and_nothing_is_counted(models: Path) -> None:
    async def test(kept: Kept) -> None:
        assert kept.ready == {"fp32", "int8", "small"}
        kept.want(SMALL)
        assert kept.residency.hurry("echo", SMALL, 1) is None
        assert kept.residency._demand._counts == {}
        assert kept.changes("loads") == 3

    run(models, test)


def test_the_first_set_is_the_reference_and_what_fits_beside_it(models: Path) -> None:
    async def test(kept: Kept) -> None:
        assert kept.ready == {"fp32", "int8"}
        assert kept.fleet.ready
        state = kept.fleet.model("echo").states["small"]
        assert (state.state, "memory limit" in state.why) == ("evicted", True)
        assert kept.residency.loaded_bytes == 4 * MB

    run(models, test, memory_limit_mb=5)


def test_each_lane_takes_its_own(models: Path) -> None:
    async def test(kept: Kept) -> None:
        assert kept.ready == {"fp32"}
        assert kept.residency.loaded_bytes == 4 * MB

    run(models, test, memory_limit_mb=5, lanes=2)


def test_a_limit_that_holds_nothing_says_how_much_would(models: Path) -> None:
    write_variant(models, "other", "fp32", resident_bytes=1_234_567)
    with pytest.raises(SettingsError) as refused:
        Kept(models, memory_limit_mb=6.4, lanes=2)
    assert str(refused.value) == (
        "memory_limit_mb: expected at least 6.47, which one variant of every model takes on "
        "2 lanes, got 6.4"
    )
    Kept(models, memory_limit_mb=6.47, lanes=2)


def test_shadows_count_in_the_limit_and_come_first(models: Path) -> None:
    shadow = AS_IT_LIES.shadow("small", 1)

    async def test(kept: Kept) -> None:
        model = kept.fleet.model("echo")
        assert kept.ready == {"fp32", "int8"}
        assert not kept.residency.room(2 * MB)
        kept.residency.check_shadow("echo", "small", shadow)
        change.direct(model, shadow, model.not_worse)
        await kept.residency.settled()
        assert len(kept.ready) == 1
        assert kept.residency.room(2 * MB) and not kept.residency.room(4 * MB)
        with pytest.raises(SettingsError, match=r"at least 4, .* lanes beside the shadows, got 3"):
            kept.residency.govern(kept.settings.model_copy(update={"memory_limit_mb": 3}), Policy())
        both = shadow.shadow("int8", 1)
        with pytest.raises(
            InvalidRequest,
            match="shadow: expected one that memory_limit_mb, 5, has room for: with it shadows "
            "take 4 MB, and one variant of every model at least 2 MB, got 'int8'",
        ):
            kept.residency.check_shadow("echo", "int8", both)

    run(models, test, memory_limit_mb=5)


def test_what_fails_to_load_leaves_its_room_to_others(tmp_path: Path) -> None:
    write_echo(tmp_path, "fp32", accuracy=0.95, fail_load=True)
    write_echo(tmp_path, "int8", accuracy=0.93)
    write_echo(tmp_path, "small", accuracy=0.9, resident_bytes=3 * MB)

    async def test(kept: Kept) -> None:
        assert kept.ready == {"int8"}
        assert kept.fleet.model("echo").states["fp32"].state == "failed"
        assert kept.fleet.ready

    run(tmp_path, test, memory_limit_mb=3)


def test_what_fails_to_come_back_gives_the_room_back_and_is_not_wanted_again(
    models: Path, tmp_path: Path
) -> None:
    write_echo(tmp_path, "worst", accuracy=0.8, latency_ms_at_1=0.1, fail_load=True)

    async def test(kept: Kept) -> None:
        await asyncio.sleep(STAY_S)
        kept.want(BEST, 10)
        kept.want(SMALL, 10)
        model = kept.fleet.model("echo")
        await kept.until(lambda: model.states["worst"].state == "failed")
        await kept.until(lambda: kept.ready == {"fp32", "int8"})
        await asyncio.sleep(STAY_S)
        kept.want(SMALL, 10)
        await kept.until(lambda: kept.ready == {"fp32", "small"})

    run(models, test, memory_limit_mb=4)


def test_what_is_wanted_comes_and_what_nobody_wants_goes(models: Path) -> None:
    async def test(kept: Kept) -> None:
        await asyncio.sleep(STAY_S)
        kept.want(BEST, 10)
        kept.want(SMALL, 10)
        await kept.until(lambda: kept.ready == {"fp32", "small"})
        model = kept.fleet.model("echo")
        assert model.states["int8"].state == "evicted"
        assert model.runnable == model.ready == set(model.loaded)
        assert (kept.changes("loads"), kept.changes("evictions")) == (3, 1)

    run(models, test, memory_limit_mb=4)


def test_a_steady_mixture_changes_nothing(models: Path) -> None:
    async def test(kept: Kept) -> None:
        for turn in range(200):
            kept.want(BEST, 2)
            kept.want(Constraints(optimize="latency", min_accuracy=Floor(0.915)), 2 + turn % 2)
            kept.want(SMALL, 2 + (turn + 1) % 2)
            await asyncio.sleep(0.005)
        assert kept.ready == {"fp32", "int8"}
        assert kept.changes("evictions") == 0

    run(models, test, memory_limit_mb=4)


def test_a_refused_request_does_not_wait_for_the_next_look(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residency, "_LEAST_STAY", 0.0)

    async def test(kept: Kept) -> None:
        pinned = Constraints(variant="small")
        kept.want(pinned)
        after_s = kept.residency.hurry("echo", pinned, 1)
        assert after_s is not None and 1 <= after_s < 10
        await kept.until(lambda: "small" in kept.ready)

    run(models, test, memory_limit_mb=4, residency_seconds=3600)


def test_what_no_variant_can_meet_is_not_demand(models: Path) -> None:
    async def test(kept: Kept) -> None:
        never = Constraints(min_accuracy=Floor(0.999))
        kept.want(never)
        assert kept.residency.hurry("echo", never, 1) is None
        assert kept.residency._demand._counts == {}

    run(models, test, memory_limit_mb=4)


def test_a_request_that_only_one_may_answer_counts_for_more(models: Path) -> None:
    async def test(kept: Kept) -> None:
        await asyncio.sleep(STAY_S)
        kept.want(BEST, 9)
        kept.want(SMALL, 9)
        kept.want(Constraints(variant="small"), 1)
        kept.want(Constraints(variant="int8"), 2)
        await kept.until(lambda: kept.ready == {"small", "int8"})

    run(models, test, memory_limit_mb=4)


class _Recorder:
    """A program that notes when it is closed."""

    def __init__(self) -> None:
        self.closed = False

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:  # noqa: ARG002
        raise AssertionError("nobody asks it")

    def kernels(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.closed = True


def test_what_is_needed_still_is_not_closed(models: Path) -> None:
    async def test(kept: Kept) -> None:
        model = kept.fleet.model("echo")
        program = _Recorder()
        model.loaded["int8"] = Loaded(
            model.cards["int8"], (program,), model.menu.by_name["int8"].build
        )
        kept.in_use.add(("echo", "int8"))
        await asyncio.sleep(STAY_S)
        kept.want(BEST, 10)
        kept.want(SMALL, 10)
        await kept.until(lambda: kept.ready == {"fp32"})
        assert model.runnable == {"fp32", "int8"}
        await asyncio.sleep(0.1)
        assert not program.closed and "small" not in kept.ready
        kept.in_use.clear()
        await kept.until(lambda: kept.ready == {"fp32", "small"})
        assert program.closed

    run(models, test, memory_limit_mb=4)


def test_what_is_needed_for_too_long_is_kept(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover, "_DRAIN_S", 0.05)

    async def test(kept: Kept) -> None:
        kept.in_use.add(("echo", "int8"))
        await asyncio.sleep(STAY_S)
        kept.want(BEST, 1000)
        kept.want(SMALL, 1000)
        await kept.until(lambda: kept.ready == {"fp32"})
        await kept.until(lambda: kept.ready == {"fp32", "int8"})
        assert kept.fleet.model("echo").states["int8"].state == "ready"
        assert kept.changes("evictions") == 0
        kept.in_use.clear()
        await kept.until(lambda: kept.ready == {"fp32", "small"})

    run(models, test, memory_limit_mb=4)


def test_a_stop_does_not_wait_for_what_is_needed(models: Path) -> None:
    async def test(kept: Kept) -> None:
        kept.in_use.add(("echo", "int8"))
        await asyncio.sleep(STAY_S)
        kept.want(BEST, 10)
        kept.want(SMALL, 10)
        await kept.until(lambda: kept.ready == {"fp32"})
        await kept.residency.stop(PATIENCE_S)
        assert kept.ready == {"fp32", "int8"}

    run(models, test, memory_limit_mb=4)


def test_a_model_changes_its_only_variant_where_the_limit_holds_no_two(models: Path) -> None:
    async def test(kept: Kept) -> None:
        assert kept.ready == {"fp32"}
        await asyncio.sleep(STAY_S)
        kept.want(SMALL)
        await kept.until(lambda: kept.ready == {"small"})

    run(models, test, memory_limit_mb=3)


def test_where_the_limit_holds_both_a_model_is_never_without(models: Path) -> None:
    """Another model's idle variant goes first, so that old and new stand side by side."""
    for variant in ("fp32", "one", "two"):
        # Loading takes long enough to be seen.
        write_variant(models, "busy", variant, resident_bytes=2 * MB, delay_ms=50)
    shutil.rmtree(models / "echo")
    write_variant(models, "idle", "fp32", resident_bytes=MB)
    write_variant(models, "idle", "spare", accuracy=0.9, resident_bytes=3 * MB // 2)

    async def test(kept: Kept) -> None:
        busy, idle = kept.fleet.model("busy"), kept.fleet.model("idle")
        assert (busy.ready, idle.ready) == ({"fp32"}, {"fp32", "spare"})
        await asyncio.sleep(STAY_S)
        for variant in ("one", "two"):
            kept.residency.wanted("busy", Constraints(variant=variant), 1)

        def changed() -> bool:
            assert kept.fleet.ready
            return busy.ready == {"one", "two"}

        await kept.until(changed)
        assert idle.ready == {"fp32"}

    run(models, test, memory_limit_mb=5)


# With the real lanes.


@pytest.fixture
def queued(tmp_path: Path) -> Path:
    write_variant(tmp_path, "slow", "fp32", delay_ms=100, delay_after=MAX_BATCH + 1)
    write_echo(tmp_path, "fp32", mirror=True)
    write_echo(tmp_path, "small", accuracy=0.9, mirror=True)
    return tmp_path


def test_what_is_queued_for_a_variant_that_leaves_is_still_answered(queued: Path) -> None:
    async def test(rig: Rig) -> None:
        model = rig.fleet.model("echo")
        assert not rig.lanes.in_use("echo", "fp32")
        await rig.busy()
        assert rig.lanes.in_use("slow", "fp32")
        ticket = rig.submit(choices=("small", "fp32"))
        assert rig.lanes.in_use("echo", "fp32")  # at once, before the lanes see it
        model.evict("fp32")
        model.evict("small")
        # Nothing new is routed to it.
        assert rig.lanes.route("echo", Constraints(), 1).verdict == "not-ready"
        assert_own(ticket, await ticket.done)
        while rig.lanes.in_use("echo", "small"):
            await asyncio.sleep(0.001)
        assert not rig.lanes.in_use("echo", "fp32")
        model.free("small")
        assert "small" not in model.loaded and model.runnable == {"fp32"}

    run_lanes(queued, test)


def test_what_was_never_told_of_a_variant_does_not_keep_it(queued: Path) -> None:
    async def test(rig: Rig) -> None:
        model = rig.fleet.model("echo")
        await rig.busy()
        model.evict("fp32")
        ticket = rig.submit(choices=("fp32", "small"), allowed=("small",))
        assert not rig.lanes.in_use("echo", "fp32")
        assert rig.lanes.in_use("echo", "small")
        model.retire("fp32")
        assert (await ticket.done).variant == "small"

    run_lanes(queued, test)


def test_what_comes_too_late_is_refused_and_not_lost(queued: Path) -> None:
    async def test(rig: Rig) -> None:
        model = rig.fleet.model("echo")
        model.evict("fp32")
        model.free("fp32")
        ticket = rig.submit(choices=("fp32",))
        with pytest.raises(NotReady, match="no variant of echo is ready"):
            await ticket.done

    run_lanes(queued, test)
