"""scikit-learn's 8x8 digits and a perceptron: real data, real training, and little of both, so that
hundreds of trainings take minutes."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from compressors import training
from compressors.task import Samples, Split, Task

_SEED = 7
_EDGES: dict[Split, tuple[int, int]] = {
    "train": (0, 900),
    "validation": (900, 1300),
    "test": (1300, 1797),
}


def perceptron(width: int) -> nn.Module:
    """Two hidden layers of `width` units; `forward(pixels)`: (n, 64) to logits (n, 10)."""
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


class DigitsMlp(Task):
    name = "digits-mlp"
    labels = tuple("0123456789")

    def network(self) -> nn.Module:
        return copy.deepcopy(_trained())

    def samples(self, split: Split) -> Samples:
        digits = load_digits()
        order = np.random.default_rng(_SEED).permutation(len(digits.target))
        rows = order[slice(*_EDGES[split])]
        pixels = (digits.data[rows] / 16.0).astype(np.float32)
        return Samples({"pixels": pixels}, digits.target[rows].astype(np.int64))

    def student(self) -> nn.Module:
        return perceptron(64)


@cache
def _trained() -> nn.Module:
    how = training.Training(epochs=15, batch_size=64, learning_rate=5e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = perceptron(256)
        training.train(network, DigitsMlp(), how, seed=_SEED, progress=lambda _done, _text: None)
    return network.eval()
