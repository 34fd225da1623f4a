"""Measuring: against programs whose speed and answers are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compressors import machine, measure, resident, usertask
from compressors.draft import draft_card
from compressors.errors import BuildError, StoreError, TaskError
from compressors.measure import Scores
from compressors.task import Samples
from router.card import TensorSpec
from tests.compressors.builds import TASK

IMAGE = (TensorSpec(name="image", datatype="FP32", shape=(-1, 4)),)
LOGITS = (TensorSpec(name="logits", datatype="FP32", shape=(-1, 3)),)


def silent(fraction: float, text: str) -> None:
    assert 0 <= fraction <= 1
    assert text


class Paced:
    """A program that takes 1 ms and 0.2 ms more a row, and slows down on every tenth run; and the
    clock that this is read from, so that a busy machine changes nothing."""

    def __init__(self) -> None:
        self.runs: dict[int, int] = {}
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(inputs["image"])
        self.runs[rows] = self.runs.get(rows, 0) + 1
        slow = 0.004 if self.runs[rows] % 10 == 0 else 0.0
        self.now_s += 0.001 + 0.0002 * rows + slow
        return {"logits": inputs["image"][:, :3]}

    def kernels(self) -> dict[str, int]:
        return {"fp32": 1}

    def close(self) -> None: ...


def test_latency_finds_median_and_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Paced()
    monkeypatch.setattr(measure, "time", program)
    samples = Samples({"image": np.zeros((5, 4), np.float32)}, np.zeros(5))
    points = measure.latency(program, samples, 1, silent)
    assert [point.batch for point in points] == [1, 2, 4, 8, 16, 32]
    for point in points:
        expected = 1 + 0.2 * point.batch
        assert point.p50_ms == pytest.approx(expected)
        assert point.p99_ms == pytest.approx(expected + 4)  # the slow tenth is in the tail
        assert point.runs >= measure.MIN_RUNS.get(point.batch, measure.MIN_RUNS_OTHERWISE)
        # Warm-up runs are made, and not counted.
        assert program.runs[point.batch] > point.runs
    assert points[0].runs >= 200


def test_a_percentile_is_a_run_that_happened() -> None:
    point = measure._point(np.arange(1.0, 31.0), 32, 1)
    assert (point.p50_ms, point.p95_ms, point.p99_ms, point.runs) == (16.0, 29.0, 30.0, 30)
    assert point.spread_ms == 14.0


def test_scores_cover_every_sample_in_order() -> None:
    task = usertask.load(TASK)
    test = Samples({"image": np.eye(3, 4, dtype=np.float32)[np.arange(50) % 3]}, np.arange(50) % 3)
    found = measure.scores(task, Paced(), test, silent)
    assert found.values.shape == (50,)
    assert found.values.all()
    assert (found.clusters == np.arange(50)).all()


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (np.ones(3), r"expected shape \(6,\), got \(3,\)"),
        (np.full(6, 1.5), "a mean from 0 to 1, got 1.5"),
        (np.full(6, np.nan), "finite values, got NaN"),
    ],
)
def test_scores_that_make_no_sense(returned: np.ndarray, told: str) -> None:
    class Odd(usertask.Task):
        name = "odd"

        def network(self): ...  # type: ignore[no-untyped-def]

        def samples(self, split): ...  # type: ignore[no-untyped-def]

        def score(self, outputs, targets):  # type: ignore[no-untyped-def]  # noqa: ARG002
            return returned

    test = Samples({"image": np.zeros((6, 4), np.float32)}, np.zeros(6))
    with pytest.raises(TaskError, match=told):
        measure.scores(Odd(), Paced(), test, silent)


def test_scores_on_disk(tmp_path: Path) -> None:
    scores = Scores(np.array([1.0, 0.5]), np.array([3, 3]))
    scores.save(tmp_path)
    back = Scores.load(tmp_path)
    np.testing.assert_array_equal(back.values, scores.values)
    np.testing.assert_array_equal(back.clusters, scores.clusters)
    assert (back.values.dtype, back.clusters.dtype) == (np.float64, np.int64)
    with pytest.raises(StoreError, match="cannot be read"):
        Scores.load(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="another test split"):
        measure.paired(scores, Scores(np.array([1.0, 0.5]), np.array([3, 4])))


def test_the_reference_differs_from_itself_by_nothing() -> None:
    scores = Scores((np.arange(300) % 20 > 0).astype(float), np.arange(300))
    assert measure.accuracy(scores).value == pytest.approx(0.95)
    paired = measure.paired(scores, scores)
    assert (paired.value, paired.low < 0 < paired.high) == (0.0, True)


def test_resident_memory_runs_without_torch() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, compressors.resident; import gateway.engines.openvino; "
            "sys.exit('torch' in sys.modules)",
        ],
        check=False,
    )
    assert done.returncode == 0


def test_resident_memory_grows_with_the_output(tmp_path: Path) -> None:
    # Echo makes zeros and keeps nothing: next to no growth.
    draft = draft_card("echo", "echo", "fp32", IMAGE, LOGITS)
    assert 4096 <= resident.measure(tmp_path, draft, {}) < 20e6


def test_a_variant_that_does_not_run_in_a_fresh_process(tmp_path: Path) -> None:
    (tmp_path / "echo.json").write_text('{"fail_load": true}')
    with pytest.raises(
        BuildError, match=r"does not run in a process of its own: .*refuses to load"
    ):
        resident.measure(tmp_path, draft_card("echo", "echo", "fp32", IMAGE, LOGITS), {})


def test_the_machine_is_described_the_same_twice() -> None:
    one, two = machine.describe(), machine.describe()
    assert one == two
    assert one.cores == machine.usable_cores() >= 1
    assert one.cpu
