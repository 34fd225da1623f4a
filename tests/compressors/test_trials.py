"""Engines on trial: the choice as a pure function, and builds on several engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compressors import artifact, measure
from compressors.measure import Scores
from compressors.trials import Trial, choose
from router.card import EngineTrial, LatencyPoint
from tests.compressors.builds import build_of

RIGHT = np.ones(1000)


def trial(
    name: str, one: float, many: float, *, spread: float = 0.0, scores: np.ndarray = RIGHT
) -> Trial:
    """An engine with these medians, in ms, at batch 1 and 32, and runs that spread so much of
    them."""
    points = tuple(
        LatencyPoint(
            batch=batch,
            threads=1,
            runs=100,
            p50_ms=ms,
            p95_ms=2 * ms,
            p99_ms=3 * ms,
            spread_ms=spread * ms,
        )
        for batch, ms in ((1, one), (32, many))
    )
    record = EngineTrial(
        name=name,
        version="1",
        format=name,
        kernels={"fp32": 1},
        validation=float(scores.mean()),
        latency=points,
        bytes_on_disk=1,
    )
    return Trial(record, Scores(scores, np.arange(len(scores))))


def winner(*found: Trial) -> str:
    return choose({each.record.name: each for each in found}, found[0].record.name)[0]


def test_the_fastest_wins() -> None:
    assert winner(trial("a", 2, 20), trial("b", 1, 10), trial("c", 0.5, 5)) == "c"
    assert winner(trial("a", 1, 10), trial("b", 2, 20)) == "a"


def test_both_batch_sizes_count() -> None:
    assert winner(trial("a", 1, 10), trial("b", 0.8, 16)) == "a"
    assert winner(trial("a", 1, 10), trial("b", 1.2, 5)) == "b"


def test_a_win_within_the_spread_goes_to_the_default() -> None:
    base = trial("a", 1, 10, spread=0.1)
    assert winner(base, trial("b", 0.95, 9.5)) == "a"
    assert winner(base, trial("b", 0.8, 8)) == "b"
    # Whoever spreads: the larger counts.
    assert winner(trial("a", 1, 10), trial("b", 0.8, 8, spread=0.5)) == "a"


def test_a_noisy_winner_leaves_the_place_to_a_steady_second() -> None:
    found = (trial("a", 1, 10), trial("b", 0.5, 5, spread=2.0), trial("c", 0.6, 6))
    assert winner(*found) == "c"


def test_a_worse_score_cannot_be_paid_for_with_speed() -> None:
    base = trial("a", 1, 10)
    lost = RIGHT.copy()
    lost[:10] = 0
    name, why = choose({"a": base, "b": trial("b", 0.1, 1, scores=lost)}, "a")
    assert name == "a"
    assert "b is 10.00 times as fast and scores less: by 1.00 points" in why


def test_an_equal_score_is_no_loss_however_few_the_samples() -> None:
    few = np.array([1.0, 0.0, 1.0])
    assert winner(trial("a", 1, 10, scores=few), trial("b", 0.5, 5, scores=few)) == "b"


def test_a_loss_that_is_shown_to_be_small_is_allowed() -> None:
    many = np.ones(20_000)
    lost = many.copy()
    lost[:10] = 0  # 0.05 points, certainly less than half a point
    assert winner(trial("a", 1, 10, scores=many), trial("b", 0.5, 5, scores=lost)) == "b"


def test_eager_never_serves() -> None:
    assert winner(trial("a", 1, 10), trial("eager", 0.1, 1)) == "a"


def test_a_build_tries_every_engine_and_keeps_their_files(tmp_path: Path) -> None:
    recipes = """
        [variants.fp32]
        engines = ["openvino", "onnxruntime"]
        [variants.int8]
        engines = ["torch", "openvino"]
        steps = [{ technique = "int8", calibration_samples = 50 }]
    """
    outcomes = build_of(recipes, tmp_path)
    assert {outcome.state for outcome in outcomes.values()} == {"built"}

    folder = tmp_path / "tiny" / "fp32"
    fp32 = artifact.read(folder)
    assert [each.name for each in fp32.engines] == ["openvino", "onnxruntime", "eager"]
    for each in fp32.engines:
        assert [point.batch for point in each.latency] == list(measure.BATCHES)
        assert set(each.kernels) == {"fp32"}
        # Three ways to run one network: they score the same.
        assert each.validation == fp32.engines[0].validation
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {"model.xml", "model.bin", "model.onnx"} <= set(sizes)
    of_engine = {
        "openvino": sizes["model.xml"] + sizes["model.bin"],
        "onnxruntime": sizes["model.onnx"],
        "eager": 0,
    }
    assert {each.name: each.bytes_on_disk for each in fp32.engines} == of_engine
    (own,) = [each for each in fp32.engines if each.name == fp32.engine.name]
    assert fp32.latency == own.latency
    assert fp32.bytes_on_disk == of_engine[fp32.engine.name]
    assert fp32.refused == {}

    int8 = artifact.read(tmp_path / "tiny" / "int8")
    assert (int8.engine.name, int8.precision) == ("openvino", "int8")
    assert [each.name for each in int8.engines] == ["openvino"]
    assert list(int8.refused) == ["torch"]
    assert "int8" in int8.refused["torch"]

    # Whatever it is compared with was measured in the same run.
    assert fp32.yardstick == ()
    assert [point.batch for point in int8.yardstick] == list(measure.BATCHES)
    assert int8.yardstick != fp32.latency
    for own, beside in zip(int8.latency, int8.yardstick, strict=True):
        assert (own.batch, own.threads) == (beside.batch, beside.threads)

    assert {o.state for o in build_of(recipes, tmp_path).values()} == {"reused"}
    other = build_of(recipes.replace('"torch", ', ""), tmp_path)["int8"]
    assert (other.state, "built for openvino and torch" in other.reason) == ("failed", True)
