"""Adult (Kohavi 1996; UCI): does a person earn over 50,000 dollars? By a perceptron.

Train and validation are the set's own training file, a tenth of it for validation, by seed; test is
its own test file. Numbers are standardised, capital gains and losses after log(1 + x); words are
one-hot by the training file's, a missing "?" being a word of its own. The weight column, which is
the census's and says nothing about the person, and education's name, which its number repeats, are
left out. The reference is trained at first use, in a minute.
"""

from __future__ import annotations

import copy
import os
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compressors import training
from compressors.task import Array, Samples, Split, Task

_SEED = 2026
_NUMBERS = (0, 4, 10, 11, 12)  # age, years of education, capital gain, capital loss, hours a week
_LOGARITHMIC = (10, 11)
_WORDS = (1, 5, 6, 7, 8, 9, 13)


class Perceptron(nn.Module):
    """Three hidden layers of `width` units; `forward(features)`: (n, columns) to logits (n, 2)."""

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        sizes = (columns, width, width, width)
        layers: list[nn.Module] = []
        for size, wider in pairwise(sizes):
            layers += [nn.Linear(size, wider), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, 2)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.layers(features))  # type: ignore[no-any-return]


class Adult(Task):
    """Samples: `features` (n, columns) float32; targets (n,) int64, 1 for over 50,000."""

    name = "adult"
    labels = ("<=50K", ">50K")

    def network(self) -> nn.Module:
        return copy.deepcopy(_reference())

    def samples(self, split: Split) -> Samples:
        return _splits()[split]

    def student(self) -> nn.Module:
        return Perceptron(_columns(), 32)


TASK = Adult()


def weights() -> Path:
    return Path(os.environ["GEARSHIFT_BENCH_WEIGHTS"]) / "adult.safetensors"


def _columns() -> int:
    return int(_splits()["train"].inputs["features"].shape[1])


def _rows(name: str) -> Array:
    text = (Path(os.environ["GEARSHIFT_BENCH_DATA"]) / "adult" / name).read_text()
    lines = [line.split(",") for line in text.splitlines()]
    return np.array([[cell.strip() for cell in line] for line in lines if len(line) == 15])


@cache
def _splits() -> dict[Split, Samples]:
    known, unseen = _rows("adult.data"), _rows("adult.test")
    order = np.random.default_rng(_SEED).permutation(len(known))
    tenth = len(known) // 10
    train = known[order[tenth:]]
    numbers = _numbers(train)
    mean, deviation = numbers.mean(axis=0), numbers.std(axis=0)
    words = [np.unique(train[:, column]) for column in _WORDS]

    def made(rows: Array) -> Samples:
        parts = [(_numbers(rows) - mean) / deviation]
        parts += [rows[:, [c]] == known for c, known in zip(_WORDS, words, strict=True)]
        targets = np.char.startswith(rows[:, 14], ">50K").astype(np.int64)
        return Samples({"features": np.concatenate(parts, axis=1).astype(np.float32)}, targets)

    return {"train": made(train), "validation": made(known[order[:tenth]]), "test": made(unseen)}


def _numbers(rows: Array) -> Array:
    numbers = rows[:, list(_NUMBERS)].astype(np.float64)
    for column in _LOGARITHMIC:
        place = _NUMBERS.index(column)
        numbers[:, place] = np.log1p(numbers[:, place])
    return numbers


@cache
def _reference() -> nn.Module:
    network = Perceptron(_columns(), 256)
    if weights().exists():
        network.load_state_dict(load_file(weights()))
        return network.eval()
    how = training.Training(epochs=6, batch_size=256, learning_rate=2e-3, weight_decay=0.05)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = Perceptron(_columns(), 256)
        training.train(network, TASK, how, seed=_SEED, progress=lambda _fraction, _text: None)
    weights().parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), weights())
    return network
