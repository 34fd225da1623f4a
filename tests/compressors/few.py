"""What the tests of techniques share: a short task, and small networks of several kinds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compressors import technique
from compressors.task import Samples, Split
from compressors.tasks.digits import Residual
from compressors.technique import Context, Network, Technique
from compressors.training import Training
from tests.tiny_task import Tiny


class Few(Tiny):
    """The tiny task, short, and its test split out of bounds."""

    def samples(self, split: Split) -> Samples:
        assert split != "test"
        return super().samples(split).batch(slice(0, 200))


class Rows(nn.Module):
    """A transformer that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 4, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layer(image[:, 0]).mean(1))  # type: ignore[no-any-return]


class FewRows(Few):
    """For what acts on transformers alone."""

    def network(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Rows().eval()


def few_for(name: str) -> Few:
    """A task with a network that the technique can act on."""
    return FewRows() if name in ("prune-heads", "prune-neurons") else Few()


def context_of(task: Tiny, seed: int = 0) -> Context:
    return Context(task, task.network(), seed, lambda _fraction, _text: None, {})


# What a technique needs to act on the tiny network, or to be quick on it.
_SETTINGS: dict[str, dict[str, object]] = {
    "batch-norm": {"samples": 100},  # fewer than there are, so that the seed chooses
    "int8-mixed": {"keep": 1},
    "svd": {"round_to": 1},
}


def short(name: str) -> tuple[Technique, object]:
    """The technique and its settings, for one epoch where it trains."""
    found = technique.get(name)
    trains = {"epochs": 1} if issubclass(found.Config, Training) else {}
    return found, found.Config.model_validate({**trains, **_SETTINGS.get(name, {})})


def applied(name: str, task: Tiny, seed: int = 0) -> Network:
    found, config = short(name)
    return found.apply(Network(task.network()), context_of(task, seed), config)


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    return Residual(16, (2, 1, 1))


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10)
    )


def flattened() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 10)
    )


EXAMPLE = Samples(
    {"image": np.random.default_rng(0).random((4, 1, 24, 24), dtype=np.float32)},
    np.zeros(4, np.int64),
)
X = torch.from_numpy(EXAMPLE.inputs["image"])
