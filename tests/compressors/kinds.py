"""Small tasks with networks of several kinds, untrained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from compressors.task import Samples, Split, Task
from tests.compressors.few import perceptron
from tests.tiny_task import network_of


class Transformer(nn.Module):
    """Token ids (n, 6) to logits (n, 4), through PyTorch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(ids)).mean(1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """Token ids (n, 6) to logits (n, 4), through an LSTM of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(ids))[0][:, -1])  # type: ignore[no-any-return]


class Kind(Task):
    """A task around an untrained network: images (n, 1, 24, 24) or token ids (n, 6)."""

    name = "kind"

    def __init__(self, make: Callable[[], nn.Module], tokens: bool = False) -> None:
        self._make, self._tokens = make, tokens

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return self._make().eval()

    def samples(self, split: Split) -> Samples:
        assert split != "test"
        rng = np.random.default_rng(("train", "validation").index(split))
        if self._tokens:
            return Samples({"ids": rng.integers(0, 20, (48, 6))}, rng.integers(0, 4, 48))
        images = rng.random((48, 1, 24, 24), dtype=np.float32)
        return Samples({"image": images}, rng.integers(0, 10, 48))


CONVOLUTIONAL = Kind(lambda: network_of(8))
PERCEPTRON = Kind(perceptron)
TRANSFORMER = Kind(Transformer, tokens=True)
RECURRENT = Kind(Recurrent, tokens=True)
KINDS = {
    "convolutional": CONVOLUTIONAL,
    "perceptron": PERCEPTRON,
    "transformer": TRANSFORMER,
    "recurrent": RECURRENT,
}
