"""A task of nothing but linear layers, wide enough for any engine's integer kernels.

scikit-learn's 8x8 digits, as `tests/tiny_task.py` has them.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from tests.tiny_task import Tiny


def network_of(width: int) -> nn.Module:
    """64 inputs, two hidden layers of `width`, untrained; `forward(image)`."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


@cache
def _trained() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = network_of(128)
        train = Tiny().samples("train")
        images, targets = torch.from_numpy(train.inputs["image"]), torch.from_numpy(train.targets)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        for _ in range(10):
            for rows in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[rows]), targets[rows]).backward()
                optimizer.step()
    return network.eval()


class Perceptron(Tiny):
    name = "perceptron"

    def network(self) -> nn.Module:
        network = network_of(128)
        network.load_state_dict(_trained().state_dict())
        return network.eval()

    def student(self) -> nn.Module:
        return network_of(32)
