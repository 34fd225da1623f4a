"""The bundled task: what it is composed of, and that no test digit is seen before its time."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from sklearn.datasets import load_digits

from compressors import interface
from compressors.task import Samples, Split
from compressors.tasks import digits
from compressors.tasks.digits import TASK, compose, sources

SPLITS: tuple[Split, ...] = get_args(Split)
TEST_SUM = 218857.18  # of all test pixels, in float64: another draw of canvases would have another


def test_sources_are_split_once_and_by_class() -> None:
    parts, target = sources(), load_digits().target
    together = np.concatenate(list(parts.values()))
    assert sorted(together) == list(range(1797))
    assert {split: len(part) for split, part in parts.items()} == {
        "test": 400,
        "validation": 200,
        "train": 1197,
    }
    assert set(np.bincount(target[parts["test"]])) == {40}
    assert set(np.bincount(target[parts["validation"]])) == {20}


@pytest.mark.parametrize("split", SPLITS)
def test_samples(split: Split) -> None:
    samples = TASK.samples(split)
    image = samples.inputs["image"]
    assert list(samples.inputs) == ["image"]
    assert image.dtype == np.float32 and image.shape == (len(samples), 1, 24, 24)
    assert samples.targets.dtype == np.int64
    assert samples.clusters is not None
    assert set(samples.clusters) == set(sources()[split])
    np.testing.assert_array_equal(samples.targets, load_digits().target[samples.clusters])
    counts = np.bincount(samples.clusters)
    assert set(counts[counts > 0]) == {10 if split == "train" else 12}
    # Every label early on: calibration and smoke tests look at the first few.
    assert set(samples.targets[:200]) == set(range(10))


def test_samples_are_the_same_at_every_call_and_in_every_process() -> None:
    before = {split: TASK.samples(split).inputs["image"] for split in SPLITS}
    digits._samples.cache_clear()
    sources.cache_clear()
    for split in SPLITS:
        np.testing.assert_array_equal(before[split], TASK.samples(split).inputs["image"])
    assert float(before["test"].astype(np.float64).sum()) == pytest.approx(TEST_SUM, abs=0.5)


def test_splits_share_no_source() -> None:
    seen = [set(TASK.samples(split).clusters.tolist()) for split in SPLITS]  # type: ignore[union-attr]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(seen, 2))


def test_clutter_comes_from_the_own_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other image is made to shine: no canvas of `own` may have a pixel of that light."""
    own = sources()["validation"]
    data = load_digits()
    data.images = data.images.copy()
    data.images[np.setdiff1d(np.arange(1797), own)] = 1600.0
    monkeypatch.setattr(digits, "load_digits", lambda: data)
    image = compose(own, 12, np.random.default_rng(0)).inputs["image"]
    assert image.max() < 1 + 6 * digits.NOISE
    # The same light is seen at once where such images do belong.
    shining = compose(sources()["test"], 1, np.random.default_rng(0)).inputs["image"]
    assert shining.max() > 90


def test_each_split_is_composed_from_its_own_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(own: np.ndarray, canvases: int, rng: np.random.Generator) -> Samples:
        asked.append(set(own.tolist()))
        return compose(own, canvases, rng)

    monkeypatch.setattr(digits, "compose", spy)
    for split in SPLITS:
        digits._samples.__wrapped__(split)
    digits.TASK.training_samples(3)
    assert asked == [set(sources()[s].tolist()) for s in (*SPLITS, "train")]


def test_a_canvas_holds_the_whole_digit_fragments_and_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digits, "NOISE", 0.0)
    own = sources()["validation"][:40]
    samples = compose(own, 5, np.random.default_rng(0))
    images = (load_digits().images / 16).astype(np.float32)
    for canvas, source in zip(samples.inputs["image"][:, 0], np.repeat(own, 5), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(canvas, (8, 8))
        holds = (windows >= images[source] - 1e-6).all(axis=(2, 3))
        assert holds.any()
        assert canvas.sum() > images[source].sum()
    noise = TASK.samples("train").inputs["image"]
    assert np.std(noise[noise < 0]) == pytest.approx(0.15 * np.sqrt(1 - 2 / np.pi), rel=0.02)


def test_the_weights_that_ship_reach_the_documented_accuracy() -> None:
    samples = TASK.samples("test").batch(slice(0, 1200))
    outputs = interface.run(TASK.network(), samples.inputs, TASK.outputs)
    assert TASK.score(outputs, samples.targets).mean() > 0.945


def test_the_weights_file_is_small_enough_to_ship() -> None:
    assert digits.WEIGHTS.stat().st_size < 4_000_000


def test_every_network_is_a_new_one() -> None:
    one, other = TASK.network(), TASK.network()
    assert one is not other and not one.training
    next(one.parameters()).data.zero_()
    assert next(other.parameters()).abs().sum() > 0


def test_the_student_is_much_smaller_and_looks_the_same_from_outside() -> None:
    student, reference = TASK.student(), TASK.network()
    shapes = [
        interface.describe(TASK, network.eval(), TASK.samples("validation")).outputs
        for network in (student, reference)
    ]
    assert shapes[0] == shapes[1]
    sizes = [sum(p.numel() for p in network.parameters()) for network in (student, reference)]
    assert sizes[0] * 10 < sizes[1]
