"""Convolutions of every kind that can be split, and what is asked of all splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from compressors import technique
from compressors.task import Samples, Split, Task
from compressors.technique import Context, Network

CONVS = st.builds(
    lambda c_in, c_out, kernel, stride, dilation, bias: nn.Conv2d(
        c_in, c_out, kernel, stride, (kernel[0] // 2, kernel[1] // 2), dilation, bias=bias
    ),
    st.integers(1, 6),
    st.integers(1, 6),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.booleans(),
)


def full_image(layer: nn.Conv2d) -> Tensor:
    """(2, in, 11, 12), random."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, layer.in_channels, 11, 12, generator=generator)


def product(chain: nn.Sequential, layer: nn.Conv2d) -> Tensor:
    """The weight (out, in, k, l) that `chain` amounts to in place of `layer`: its answer to one
    pixel in each input channel, with neither strides nor padding."""
    k, width = layer.kernel_size
    one = torch.zeros(layer.in_channels, layer.in_channels, 2 * k - 1, 2 * width - 1)
    one[range(layer.in_channels), range(layer.in_channels), k - 1, width - 1] = 1
    for part in chain:
        assert isinstance(part, nn.Conv2d)
        one = nn.functional.conv2d(one, part.weight, groups=part.groups)
    return one.flip(2, 3).transpose(0, 1)


class Images(Task):
    """A residual block of 32 channels, with a stride; random labels."""

    name = "images"

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return Block().eval()

    def samples(self, split: Split) -> Samples:
        assert split != "test"
        rng = np.random.default_rng(len(split))
        images = rng.standard_normal((64, 32, 8, 8)).astype(np.float32)
        return Samples({"image": images}, rng.integers(0, 4, 64))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(32, 32, (3, 5), padding=(1, 2), bias=False)
        self.one = nn.Conv2d(32, 32, 1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.head = nn.Linear(32, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.down(image))
        x = x + torch.relu(self.deep(x))
        return self.head(self.grouped(torch.relu(self.one(x))).mean((2, 3)))  # type: ignore[no-any-return]


class Linears(Images):
    """Nothing to convolve but 1 x 1."""

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(32, 32, 1), nn.Flatten(), nn.Linear(2048, 4)).eval()


def applied_to(task: Task, name: str, **settings: Any) -> nn.Module:
    """The network of `task` by the technique `name`, not fine-tuned unless asked."""
    found = technique.get(name)
    context = Context(task, task.network(), 0, lambda _fraction, _text: None, {})
    config = found.Config.model_validate({"epochs": 0, **settings})
    return found.apply(Network(task.network()), context, config).module
