"""Small tasks that are no plain classification, for what trains: tokens read by a recurrent
network, embeddings of two inputs, and a number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compressors.task import Array, Samples, Split, Task

_SEEDS = {"train": 1, "validation": 2}
COUNT, TOKENS = 96, 6


class Reader(nn.Module):
    """Ids (n, tokens) to logits (n, tokens, 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(8, width)
        self.read = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.read(self.words(ids))[0])  # type: ignore[no-any-return]


class Tokens(Task):
    """Is the sum of the ids so far 0, 1 or 2 modulo 3? Padding has the label -100."""

    name = "tokens"
    labels = ("zero", "one", "two")

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return Reader(12).eval()

    def student(self) -> nn.Module:
        return Reader(8)

    def samples(self, split: Split) -> Samples:
        random = np.random.default_rng(_SEEDS[split])
        ids = random.integers(0, 8, (COUNT, TOKENS))
        targets = ids.cumsum(1) % 3
        targets[np.arange(TOKENS) >= random.integers(2, TOKENS + 1, (COUNT, 1))] = -100
        return Samples({"ids": ids}, targets)

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        right = (outputs["logits"].argmax(-1) == targets) & (targets >= 0)
        return np.asarray(right.sum(1) / (targets >= 0).sum(1))

    def loss(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs[0].transpose(1, 2), targets, ignore_index=-100)


class Joined(nn.Module):
    """Two vectors (n, 4) and (n, 3) to a vector (n, 5) and its length (n,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(7, width), nn.Tanh(), nn.Dropout(0.1))
        self.out = nn.Linear(width, 5)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        vector = self.out(self.inner(torch.cat([left, right], 1)))
        return vector, vector.norm(dim=1)


class Vectors(Task):
    """Embeddings of two inputs: the nearer to the target, the better."""

    name = "vectors"
    metric = "similarity"
    outputs = ("embedding", "length")

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return Joined(16).eval()

    def student(self) -> nn.Module:
        return Joined(6)

    def samples(self, split: Split) -> Samples:
        random = np.random.default_rng(_SEEDS[split])
        left, right = (random.standard_normal((COUNT, d), dtype=np.float32) for d in (4, 3))
        return Samples({"left": left, "right": right}, np.tanh(np.c_[left, right[:, :1]]))

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        return np.exp(-np.square(outputs["embedding"] - targets).mean(1)).astype(np.float64)

    def loss(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs[0], targets)


class Flat(nn.Module):
    """(n, 4) to (n,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(1)  # type: ignore[no-any-return]


class Number(Task):
    """Regression, under the default name of the output."""

    name = "number"

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return Flat(16).eval()

    def student(self) -> nn.Module:
        return Flat(4)

    def samples(self, split: Split) -> Samples:
        x = np.random.default_rng(_SEEDS[split]).standard_normal((COUNT, 4), dtype=np.float32)
        return Samples({"x": x}, x.sum(1))

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        return np.exp(-np.square(outputs["logits"] - targets)).astype(np.float64)

    def loss(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs[0], targets)


TASKS: tuple[type[Task], ...] = (Tokens, Vectors, Number)
