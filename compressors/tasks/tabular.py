"""The bundled tabular task: a tumour's measurements, benign or malignant, by a perceptron.

The data are the 569 samples of 30 measurements that scikit-learn ships, the UCI "Breast Cancer
Wisconsin (Diagnostic)" set (Street, Wolberg & Mangasarian 1993, CC BY 4.0). Half of them, drawn by
seed and by class, are for training, a seventh for validation, the rest for test; columns are
standardised by the training samples.

The reference has two hidden layers of 64 units, 6,274 parameters. It is trained at the first call,
in a second or two, and kept in memory. So small a network is told apart by what a call costs, not
by what it computes: a task to see that on.
"""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from compressors import training
from compressors.task import Samples, Split, Task

_SEED = 2026
_PARTS: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.5),
    "validation": (0.5, 0.64),
    "test": (0.64, 1.0),
}


class Perceptron(nn.Module):
    """Two hidden layers of `width` units; `forward(features)`: (n, 30) float32 to logits (n, 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(30, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.head = nn.Linear(width, 2)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.layers(features))  # type: ignore[no-any-return]


class Tabular(Task):
    """See the module's docstring. Samples: `features` (n, 30) float32; targets (n,) int64."""

    name = "tabular"
    labels = ("malignant", "benign")

    def network(self) -> nn.Module:
        return copy.deepcopy(_reference())

    def samples(self, split: Split) -> Samples:
        return _splits()[split]

    def student(self) -> nn.Module:
        return Perceptron(16)


TASK = Tabular()


@cache
def _splits() -> dict[Split, Samples]:
    data = load_breast_cancer()
    features, targets = data.data, data.target.astype(np.int64)
    rng = np.random.default_rng(_SEED)
    place = np.empty(len(targets))
    for label in np.unique(targets):
        count = int((targets == label).sum())
        place[targets == label] = rng.permutation(count) / count
    train = features[place < _PARTS["train"][1]]
    features = ((features - train.mean(axis=0)) / train.std(axis=0)).astype(np.float32)
    # Any first few samples should show both classes.
    order = rng.permutation(len(targets))
    splits: dict[Split, Samples] = {}
    for split, (low, high) in _PARTS.items():
        rows = order[(place[order] >= low) & (place[order] < high)]
        splits[split] = Samples({"features": features[rows]}, targets[rows])
    return splits


@cache
def _reference() -> nn.Module:
    """The trained network; copied, never given away."""
    how = training.Training(epochs=20, batch_size=32, learning_rate=5e-3, weight_decay=0.05)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = Perceptron(64)
        training.train(network, TASK, how, seed=_SEED, progress=lambda _fraction, _text: None)
    return network.eval()
