"""What may happen to a model that is served, each thing by itself, and across a queue."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway import hosts
from gateway.engines import EngineError
from gateway.lifecycle import catalog, change, warmup
from gateway.lifecycle.fleet import Fleet
from gateway.lifecycle.served import ServedModel
from gateway.lifecycle.signature import NotSigned
from gateway.lifecycle.warmup import load_program
from router.card import TensorSpec
from router.rollout import AS_IT_LIES
from tests.e2e.harness import until
from tests.gateway.lane_rig import MAX_BATCH, Rig, assert_own, run
from tests.stores import write_variant

HOW: dict[str, Any] = {"threads": 1, "max_batch": MAX_BATCH, "trust": False}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32", accuracy=0.95, mirror=True)
    write_variant(models, "echo", "int8", accuracy=0.93, mirror=True)
    write_variant(models, "slow", "fp32", delay_ms=60)
    return models


def served(store: Path) -> ServedModel:
    fleet = Fleet.of(catalog.usable(store), percentile=99, usd_per_lane_hour=0.05, max_batch=32)
    model = fleet.model("echo")
    for variant in model.builds:
        model.load(variant, [hosts.open_one("thread", 0)], **HOW)
    assert model.ready == {"fp32", "int8"}
    return model


def another(store: Path, variant: str = "fp32", **more: Any) -> catalog.Entry:
    """Another build in a variant's place."""
    shutil.rmtree(store / "echo" / variant)
    return catalog.read_variant(write_variant(store, "echo", variant, **more))


def test_a_new_build_waits_beside_the_one_that_serves(store: Path) -> None:
    model = served(store)
    before, menu = model.builds["fp32"], model.menu
    change.found(model, "fp32", another(store, accuracy=0.97))
    assert model.builds["fp32"] is before and model.menu is menu
    loaded = model.prepare(model.incoming["fp32"], [hosts.open_one("thread", 0)], **HOW)
    assert loaded is not None and model.ready == {"fp32", "int8"}
    change.switch(model, "fp32", loaded)
    assert model.menu.by_name["fp32"].accuracy == 0.97
    assert model.menu.by_name["int8"] is menu.by_name["int8"]  # who queued for it is not told apart
    assert model.leaving == [before] and not model.incoming
    assert model.ready == model.runnable == {"fp32", "int8"}
    # Each offer leads to its own build, as long as that is in memory.
    assert model.build(menu.by_name["fp32"]) is before.loaded is not loaded
    assert model.build(model.menu.by_name["fp32"]) is loaded
    change.unneeded(model, before)
    before.move("free")
    change.freed(model, before)
    with pytest.raises(EngineError, match="not in memory any more"):
        model.build(menu.by_name["fp32"])


def test_one_that_fails_or_is_broken_leaves_the_one_that_serves(store: Path) -> None:
    model = served(store)
    change.found(model, "fp32", another(store, accuracy=0.97, fail_load=True))
    build = model.incoming.pop("fp32")
    assert model.prepare(build, [hosts.open_one("thread", 0)], **HOW) is None
    change.keep(model, "fp32", build.why)
    change.spoilt(model, "int8", "card.json is missing")
    assert model.ready == {"fp32", "int8"}
    assert "echo.json asks" in model.states["fp32"].why
    assert "card.json is missing" in model.states["int8"].why
    assert {state.state for state in model.states.values()} == {"ready"}


def test_one_that_was_replaced_while_it_was_loaded_does_not_serve(store: Path) -> None:
    model = served(store)
    change.found(model, "fp32", another(store, accuracy=0.97))
    another(store, accuracy=0.5)
    build = model.incoming["fp32"]
    assert model.prepare(build, [hosts.open_one("thread", 0)], **HOW) is None
    assert build.why == "it was replaced since it was checked"


@pytest.mark.parametrize("way", ["evicted", "disabled", "unloaded"])
def test_a_file_that_changed_is_not_loaded_again(store: Path, way: str) -> None:
    model = served(store)
    (store / "echo" / "int8" / "echo.json").write_text('{"delay_ms": 1}')
    if way == "evicted":
        model.evict("int8")
        model.free("int8")
    else:
        off = AS_IT_LIES.disable("int8") if way == "disabled" else AS_IT_LIES.serve(False)
        change.direct(model, off, model.not_worse)
        change.direct(model, AS_IT_LIES, model.not_worse)
    model.load("int8", [hosts.open_one("thread", 0)], **HOW)
    assert model.states["int8"].state == "failed"
    assert "echo.json has digest" in model.states["int8"].why


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_file_that_changed_is_not_taken_for_the_one_that_was_checked(
    store: Path, moment: str
) -> None:
    entry = catalog.read_variant(store / "echo" / "int8")
    file = store / "echo" / "int8" / "echo.json"

    def edit() -> None:
        file.write_text('{"fail_load": true}')

    if moment == "before":
        edit()
    with pytest.raises(EngineError, match=r"echo\.json has digest"):  # and not the engine's words
        load_program(hosts.open_one("thread", 0), entry, **HOW, pause=edit)


def test_a_signature_that_went_keeps_a_build_from_memory(store: Path) -> None:
    signed = True

    def check(_: Path) -> None:
        if not signed:
            raise NotSigned("it is not signed")

    entry = catalog.read_variant(store / "echo" / "int8", check)
    load_program(hosts.open_one("thread", 0), entry, **HOW).close()
    signed = False
    with pytest.raises(EngineError, match="it is not signed"):
        load_program(hosts.open_one("thread", 0), entry, **HOW)


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_lane_that_comes_back_loads_what_was_checked_alone(
    store: Path, kind: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [catalog.read_variant(store / "echo" / name) for name in ("fp32", "int8")]
    host = hosts.open_one(kind, 0)
    try:
        good, bad = [load_program(host, entry, **HOW) for entry in entries]
        file = entries[1].folder / "echo.json"
        if moment == "before":
            file.write_text('{"delay_ms": 1}')
        else:  # the first check passes, what was loaded does not
            check = catalog.check_unchanged
            passed = []

            def replaced(entry: catalog.Entry) -> None:
                check(entry)
                if entry is entries[1] and not passed:
                    passed.append(entry)
                    file.write_text('{"delay_ms": 1}')

            monkeypatch.setattr(warmup, "check_unchanged", replaced)
        host.give_up(bad)
        restored = [card.variant for _, card in host.restore()]
        assert restored == (["fp32"] if kind == "process" else [])
        rows = {"image": np.ones((1, 4), np.float32)}
        assert good.infer(rows)["logits"].shape == (1, 3)

        def why() -> str:
            with pytest.raises(EngineError) as told:
                bad.infer(rows)
            return str(told.value)

        until(lambda: "being loaded again" not in why(), "it was tried")
        assert "cannot be loaded again: echo.json has digest" in why()
    finally:
        host.close()


def test_one_that_does_not_go_with_the_others_is_left_out(store: Path) -> None:
    model = served(store)
    other = (TensorSpec(name="image", datatype="FP32", shape=(-1, 5)),)
    change.found(model, "int8", another(store, "int8", inputs=other))
    assert catalog.DISAGREES in model.states["int8"].why
    assert model.ready == {"fp32", "int8"}


@pytest.mark.parametrize("stage", ["ready", "loading", "waiting"])
def test_what_is_disabled_leaves_whatever_it_was_doing(store: Path, stage: str) -> None:
    model = served(store)
    if stage != "ready":
        model.evict("fp32")
        model.free("fp32")
    if stage == "loading":
        model.builds["fp32"].move("load")
    before = model.builds["fp32"]
    change.direct(model, AS_IT_LIES.disable("fp32"), model.not_worse)
    assert model.ready == {"int8"} and [*model.menu.by_name] == ["int8"]
    assert (model.builds["fp32"] is before) == (stage == "waiting")
    assert model.leaving == ([before] if stage == "ready" else [])
    assert model.states["fp32"].state == "disabled"
    change.direct(model, AS_IT_LIES, model.not_worse)
    assert model.builds["fp32"].stage == "waiting"  # to be loaded again


def test_a_queued_request_is_run_on_the_build_that_it_was_promised(store: Path) -> None:
    async def test(rig: Rig) -> None:
        model = rig.fleet.model("echo")
        old = model.menu.by_name["fp32"]
        assert not rig.lanes.holds(old.build)
        await rig.busy()
        queued = rig.submit(choices=("fp32",))
        assert rig.lanes.holds(old.build)
        assert not rig.lanes.holds(model.menu.by_name["int8"].build)
        # The new build does not mirror its inputs, so its answers are told apart.
        change.found(model, "fp32", another(store, accuracy=0.97))
        loaded = model.prepare(model.incoming["fp32"], [hosts.open_one("thread", 0)], **HOW)
        assert loaded is not None
        rig.lanes.change(partial(change.switch, model, "fp32", loaded))
        rig.lanes.replaced("echo", "fp32")
        after = rig.submit(choices=("fp32",))
        assert_own(queued, await queued.done)
        assert np.all((await after.done).outputs["logits"] == 0)
        while rig.lanes.holds(old.build):  # it is let go of a moment after the answer
            await rig.busy()
        assert [batch for batch in rig.batches if batch[0] == "echo"] == [("echo", "fp32", 1)] * 2

    run(store, test)


def test_a_model_that_is_gone_answers_what_is_queued(store: Path) -> None:
    async def test(rig: Rig) -> None:
        model = rig.fleet.model("echo")
        await rig.busy()
        queued = rig.submit(choices=("fp32", "int8"))

        def go() -> None:
            for variant in ("fp32", "int8"):
                change.gone(model, variant)
            model.remake()
            rig.fleet.changed()

        rig.lanes.change(go)
        assert rig.fleet.names() == ["slow"] and not model.ready
        assert_own(queued, await queued.done)

    run(store, test)
