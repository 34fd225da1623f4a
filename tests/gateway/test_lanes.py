"""Batches: who shares one, whose rows are whose, and what a failing engine breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.engines import Tensor, Tensors
from gateway.execution.lease import Loaded
from router.card import TensorSpec
from router.errors import EngineFailed, NotReady
from tests.gateway.lane_rig import MAX_BATCH, Rig, assert_own, run
from tests.stores import write_variant


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_variant(tmp_path, "slow", "fp32", delay_ms=100, delay_after=MAX_BATCH + 1)
    return tmp_path


def test_requests_share_batches_and_each_gets_its_own_rows(models: Path) -> None:
    write_variant(models, "echo", "fp32", mirror=True)

    async def test(rig: Rig) -> None:
        first = await rig.busy()
        tickets = [rig.submit(rows) for rows in (1, 2, 1, 3, 1, 4, 2)]
        for ticket in tickets:
            assert_own(ticket, await ticket.done)
        assert (await first.done).batch_rows == 1
        # In order, but nobody is split, and none is over the limit.
        assert rig.batches[0] == ("slow", "fp32", 1)
        assert [rows for _, _, rows in rig.batches[1:]] == [4, 4, 4, 2]
        assert rig.lanes.queued == 0

    run(models, test)


def test_a_request_with_more_rows_than_a_batch_runs_in_pieces(models: Path) -> None:
    write_variant(models, "echo", "fp32", mirror=True)

    async def test(rig: Rig) -> None:
        await rig.busy()
        large, small = rig.submit(2 * MAX_BATCH + 1), rig.submit(1)
        assert_own(large, await large.done)
        assert_own(small, await small.done)
        assert [rows for _, _, rows in rig.batches[1:]] == [2 * MAX_BATCH + 1, 1]

    run(models, test)


def test_variants_and_models_never_share_a_batch(models: Path) -> None:
    for model in ("echo", "other"):
        write_variant(models, model, "fp32", accuracy=0.95, mirror=True)
        write_variant(models, model, "small", accuracy=0.9, mirror=True)

    async def test(rig: Rig) -> None:
        await rig.busy()
        tickets = [
            rig.submit(1, (variant,), model=model)
            for _ in range(2)
            for model in ("echo", "other")
            for variant in ("fp32", "small")
        ]
        for ticket in tickets:
            result = await ticket.done
            assert_own(ticket, result)
            assert result.variant == ticket.decision.variant
        assert sorted(rig.batches[1:]) == [
            ("echo", "fp32", 2),
            ("echo", "small", 2),
            ("other", "fp32", 2),
            ("other", "small", 2),
        ]

    run(models, test)


def test_two_lanes_work_side_by_side(models: Path) -> None:
    async def test(rig: Rig) -> None:
        first = await rig.busy()
        second = rig.submit(model="slow")
        one, two = await first.done, await second.done
        assert two.started_s < one.finished_s
        assert two.started_s - second.request.received_s < 0.1

    run(models, test, count=2)


def test_engine_that_raises_fails_its_batch_and_not_the_lane(models: Path) -> None:
    write_variant(models, "echo", "fp32", fail_after=MAX_BATCH + 2)
    write_variant(models, "good", "fp32", mirror=True)

    async def test(rig: Rig) -> None:
        await rig.submit().done
        for _ in range(3):
            for ticket in (rig.submit(), rig.submit()):
                with pytest.raises(EngineFailed, match="echo fails from run"):
                    await ticket.done
        good = rig.submit(model="good")
        assert_own(good, await good.done)
        # What failed is no batch that anything is learnt from.
        assert rig.batches == [("echo", "fp32", 1), ("good", "fp32", 1)]

    run(models, test)


def test_a_group_that_fails_takes_nobody_of_another_length_with_it(models: Path) -> None:
    free = TensorSpec(name="image", datatype="FP32", shape=(-1, -1))
    write_variant(models, "echo", "fp32", inputs=(free,), mirror=True, fail_length=7)

    async def test(rig: Rig) -> None:
        first = await rig.busy()
        bad, good, large = rig.submit(length=7), rig.submit(length=5), rig.submit(2, length=3)
        with pytest.raises(EngineFailed, match="echo fails on rows of length 7"):
            await bad.done
        for ticket in (good, large):
            result = await ticket.done
            assert_own(ticket, result)
            assert result.batch_rows == 4
        await first.done
        only = rig.submit(length=7)
        with pytest.raises(EngineFailed):
            await only.done
        # One batch of them all, of which only what was answered is told and learnt from.
        assert rig.batches[1:] == [("echo", "fp32", 3)]
        assert rig.scheduler.telemetry.batches == len(rig.batches) == 2

    run(models, test)


class _Odd:
    """A program that answers with whatever it was given."""

    def __init__(self, outputs: dict[str, Tensor]) -> None:
        self._outputs = outputs

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        del inputs
        return self._outputs

    def kernels(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Holds nothing."""


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "output 'logits' is missing"),
        ({"logits": np.zeros((2, 3), np.float32)}, r"has shape \(2, 3\), expected \(1, 3\)"),
        ({"logits": np.zeros(3, np.float32)}, r"has shape \(3,\)"),
        ({"logits": np.zeros((1, 3))}, "has datatype float64, expected FP32"),
    ],
)
def test_engine_that_answers_with_something_else_than_the_card_says(
    models: Path, outputs: dict[str, Tensor], message: str
) -> None:
    write_variant(models, "echo", "fp32")
    write_variant(models, "good", "fp32", mirror=True)

    async def test(rig: Rig) -> None:
        model = rig.fleet.model("echo")
        model.loaded["fp32"] = Loaded(
            model.cards["fp32"], (_Odd(outputs),), model.menu.by_name["fp32"].build
        )
        with pytest.raises(EngineFailed, match=message):
            await rig.submit().done
        good = rig.submit(model="good")
        assert_own(good, await good.done)

    run(models, test)


def test_model_without_a_variant_that_serves(models: Path) -> None:
    write_variant(models, "echo", "fp32", fail_load=True)

    async def test(rig: Rig) -> None:
        with pytest.raises(NotReady, match="no variant of echo is ready"):
            await rig.submit().done

    run(models, test)
