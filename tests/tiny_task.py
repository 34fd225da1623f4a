"""A task small enough for tests: scikit-learn's 8x8 digits and a convolutional network.

Trains in about a second. Real data, a real network, everything the contract offers.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from compressors.task import Array, Samples, Split, Task

_SEED = 7
_EDGES: dict[Split, tuple[int, int]] = {
    "train": (0, 1100),
    "validation": (1100, 1400),
    "test": (1400, 1797),
}


@cache
def _data() -> tuple[Array, Array]:
    digits = load_digits()
    order = np.random.default_rng(_SEED).permutation(len(digits.target))
    images = (digits.images[order, None] / 16.0).astype(np.float32)
    return images, digits.target[order].astype(np.int64)


def network_of(width: int) -> nn.Module:
    """A convolutional network of `width` channels, untrained; `forward(image)`."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 10),
    )


@cache
def _trained() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = network_of(16)
        images, targets = (torch.from_numpy(a[:1100]) for a in _data())
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        network.train()
        for _ in range(10):
            for rows in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[rows]), targets[rows]).backward()
                optimizer.step()
    return network.eval()


class Tiny(Task):
    name = "tiny"
    labels = tuple("0123456789")

    def network(self) -> nn.Module:
        network = network_of(16)
        network.load_state_dict(_trained().state_dict())
        return network.eval()

    def samples(self, split: Split) -> Samples:
        images, targets = _data()
        first, last = _EDGES[split]
        return Samples({"image": images[first:last]}, targets[first:last])

    def student(self) -> nn.Module:
        return network_of(8)
