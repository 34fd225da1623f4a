"""The samples that value ranges are found on, and the layers that have any."""

from __future__ import annotations

import numpy as np
from torch import nn

from compressors.task import Samples, Task

QUANTISED: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.Linear,
    nn.MultiheadAttention,
)
"""The kinds of layers that engines compute in 8-bit integers."""


def draw(task: Task, count: int, seed: int) -> Samples:
    """`count` training samples without repeats, or all of them where there are fewer."""
    train = task.samples("train")
    rows = np.random.default_rng(seed).choice(len(train), min(count, len(train)), replace=False)
    return train.batch(rows)


def has_quantised(module: nn.Module) -> bool:
    """Whether there is a layer that integers could compute."""
    return any(isinstance(part, QUANTISED) for part in module.modules())
