"""The bundled tabular task."""

from __future__ import annotations

import numpy as np
import torch

from compressors import training, usertask
from compressors.task import Split
from compressors.tasks import tabular

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def test_every_sample_is_in_one_split() -> None:
    splits = [tabular.TASK.samples(split) for split in SPLITS]
    rows = [row.tobytes() for each in splits for row in each.inputs["features"]]
    assert len(rows) == len(set(rows)) == 569
    shares = [each.targets.mean() for each in splits]
    np.testing.assert_allclose(shares, shares[0], atol=0.02)  # by class
    train = splits[0].inputs["features"]
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-5)


def test_the_reference_is_trained_once_and_given_as_copies() -> None:
    first, second = tabular.TASK.network(), tabular.TASK.network()
    validation = tabular.TASK.samples("validation")
    assert training.validation_score(first, tabular.TASK, validation) > 0.93
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert next(second.parameters()).abs().max() > 0
    assert next(tabular.TASK.network().parameters()).abs().max() > 0


def test_it_is_bundled() -> None:
    assert usertask.load("tabular").labels == ("malignant", "benign")
