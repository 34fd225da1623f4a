"""The samples that value ranges are found on, and the layers that have any."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx, nn

from compressors.task import Samples, Task

QUANTISED: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.Linear,
    nn.MultiheadAttention,
)
"""The kinds of layers that engines compute in 8-bit integers."""

LINEAR: tuple[type[nn.Module], ...] = (nn.Linear, nn.MultiheadAttention)
"""Those of them that multiply matrices."""

# What they become in an exported program, which has no layers: the operations of its graph.
_LINEAR_OPERATIONS = frozenset({"aten::linear", "aten::addmm", "aten::mm", "aten::matmul"})
_OPERATIONS = _LINEAR_OPERATIONS | {
    "aten::conv1d",
    "aten::conv2d",
    "aten::conv3d",
    "aten::convolution",
}


def draw(task: Task, count: int, seed: int) -> Samples:
    """`count` training samples without repeats, or all of them where there are fewer."""
    train = task.samples("train")
    rows = np.random.default_rng(seed).choice(len(train), min(count, len(train)), replace=False)
    return train.batch(rows)


def has_quantised(module: nn.Module) -> bool:
    """Whether there is a layer, or an operation in a graph, that integers could compute."""
    return _has(module, QUANTISED, _OPERATIONS)


def has_linear(module: nn.Module) -> bool:
    """Whether there is a linear layer, or a product of matrices in a graph."""
    return _has(module, LINEAR, _LINEAR_OPERATIONS)


def _has(
    module: nn.Module, layers: tuple[type[nn.Module], ...], operations: frozenset[str]
) -> bool:
    return any(
        isinstance(part, layers)
        or (isinstance(part, fx.GraphModule) and not operations.isdisjoint(_called(part)))
        for part in module.modules()
    )


def _called(part: fx.GraphModule) -> set[str]:
    """Names of torch's operations in the graph, such as aten::linear."""
    targets = (node.target for node in part.graph.nodes)
    return {target._schema.name for target in targets if isinstance(target, torch._ops.OpOverload)}
