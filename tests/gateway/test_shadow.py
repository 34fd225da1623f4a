"""When two answers agree, by what a caller would make of them; and shadows that are faulty."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gateway.lifecycle import catalog
from gateway.lifecycle.fleet import Fleet
from gateway.lifecycle.shadow import Shadows, agreement
from gateway.messages import InferRequest
from gateway.metrics import Metrics
from gateway.settings import Settings
from router.card import TensorSpec
from router.constraints import Constraints
from router.rollout import AS_IT_LIES
from tests.gateway.lane_rig import PATIENCE_S
from tests.stores import write_variant

SCORES = TensorSpec(name="y", datatype="FP32", shape=(-1, 3))
NUMBER = TensorSpec(name="y", datatype="FP32", shape=(-1, 1))
TOKENS = TensorSpec(name="y", datatype="INT64", shape=(-1, -1))


@pytest.mark.parametrize(
    ("spec", "one", "other", "alike"),
    [
        (SCORES, [[0.1, 0.8, 0.1], [1, 0, 0]], [[0.3, 0.4, 0.3], [0, 1, 0]], [True, False]),
        (NUMBER, [[1.0], [1.0], [np.nan]], [[1.02], [1.2], [np.nan]], [True, False, True]),
        (TOKENS, [[1, 2], [3, 4]], [[1, 2], [3, 5]], [True, False]),
        (TOKENS, [[1, 2]], [[1, 2, 3]], [False]),
    ],
)
def test_rows_agree(
    spec: TensorSpec, one: list[object], other: list[object], alike: list[bool]
) -> None:
    kind = np.int64 if spec is TOKENS else np.float32
    answers = ({"y": np.array(one, kind)}, {"y": np.array(other, kind)})
    assert agreement(*answers, (spec,), len(one)).tolist() == alike


ODD = 7.0
SHADOWS = AS_IT_LIES.shadow("faulty", 1).shadow("sound", 1)


async def compare(shadows: Shadows, metrics: Metrics, value: float) -> Counter[tuple[str, str]]:
    """What has become of the requests for each shadow, once a row of `value` was answered too."""

    def told() -> Counter[tuple[str, str]]:
        return Counter({
            (sample.labels["variant"], sample.labels["outcome"]): int(sample.value)
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == "gearshift_shadow_requests_total"
        })  # fmt: skip

    before = told()
    image = np.full((1, 4), value, np.float32)
    request = InferRequest("echo", {"image": image}, 1, Constraints(), time.monotonic())
    shadows.answered(request, {"logits": np.zeros((1, 3), np.float32)})
    async with asyncio.timeout(PATIENCE_S):
        while (now := told()).total() < before.total() + 2:
            await asyncio.sleep(0.005)
    return now - before


@pytest.mark.parametrize(
    ("kind", "fault", "limit_s", "why"),
    [
        # Longer than anybody waits: that it ended is seen, not waited for.
        ("process", "exit", 2 * PATIENCE_S, "the lane's process ended by SIGKILL"),
        ("process", "hang", 1.0, "it did not come back within 1 s"),
        ("thread", "hang", 1.0, "it did not come back within 1 s"),
    ],
)
def test_one_that_crashes_or_hangs_harms_nobody(
    tmp_path: Path, kind: str, fault: str, limit_s: float, why: str
) -> None:
    models, file = tmp_path / "models", tmp_path / "fault"
    file.write_text(f"{fault} {ODD}", encoding="ascii")
    write_variant(models, "echo", "fp32")
    write_variant(models, "echo", "sound")
    write_variant(models, "echo", "faulty", fault_file=str(file))

    async def test() -> None:
        settings = Settings(models=models, lane_kind=kind, batch_timeout_seconds=limit_s)
        fleet = Fleet.of(
            catalog.usable(models), percentile=99, usd_per_lane_hour=0.05, max_batch=4,
            rollout=lambda _: SHADOWS,
        )  # fmt: skip
        metrics = Metrics()
        shadows = Shadows(fleet, settings, metrics, lambda: True)
        both = {("faulty", "compared"): 1, ("sound", "compared"): 1}
        lost = {("faulty", "lost"): 1, ("sound", "compared"): 1}
        try:
            assert await compare(shadows, metrics, 1.0) == both
            assert shadows.loaded_bytes() == 8000
            for _ in range(2):
                assert await compare(shadows, metrics, ODD) == lost
                assert fleet.model("echo").states["faulty"].why == f"{why}; it is loaded anew"
                assert shadows.loaded_bytes() == 4000
                assert await compare(shadows, metrics, 1.0) == both
                assert fleet.model("echo").states["faulty"].why == ""
            assert await compare(shadows, metrics, ODD) == lost
            assert fleet.model("echo").states["faulty"].why == f"{why}; given up"
            skipped = {("faulty", "skipped"): 1, ("sound", "compared"): 1}
            assert await compare(shadows, metrics, 1.0) == skipped
        finally:
            file.unlink()
            await shadows.stop()

    asyncio.run(test())
