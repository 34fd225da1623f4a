"""batch-norm: the running means and variances of batch norm layers are estimated anew on training
samples, without any gradient. A step that removes channels or changes weights leaves statistics
behind that no longer fit, and re-estimating them wins back much of what that seems to cost (Li et
al. 2020, "EagleEye", arXiv 2007.02491).

The estimate is that of the whole population: over all samples and places, the mean of the inputs
and the mean of their squares, from batches that are normalised by themselves (PreciseBN: Wu &
Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576):

    mean = E[x]        var = (E[x^2] - mean^2) * count / (count - 1)

All other layers run as in inference: no dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressors.errors import NotApplicable
from compressors.task import Samples
from compressors.technique import Context, Network, Settings, Technique


class _Config(Settings):
    samples: int = Field(2000, ge=2, le=1_000_000, description="training samples, drawn by seed")
    batch_size: int = Field(
        256, ge=2, le=4096, description="samples that are normalised together on the way"
    )


class _BatchNormStatistics(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Estimates the statistics of batch norm layers anew, without training."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network that came in, with other running statistics.

        Raises:
            NotApplicable: it has no batch norm layer with running statistics, or there are fewer
                than two training samples.
        """
        train = context.task.samples("train")
        layers = [
            layer
            for layer in network.module.modules()
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        ]
        if not layers:
            raise NotApplicable("batch-norm: no batch norm layer with running statistics")
        if len(train) < 2:
            raise NotApplicable("batch-norm: expected at least 2 training samples, got 1")
        chosen = np.random.default_rng(context.seed).permutation(len(train))[: config.samples]
        estimate(network.module, layers, train.batch(chosen), config.batch_size, context.progress)
        return network


TECHNIQUE = _BatchNormStatistics()


def estimate(
    network: nn.Module,
    layers: list[_BatchNorm],
    samples: Samples,
    batch_size: int,
    progress: Callable[[float, str], None],
) -> None:
    """Set, in place, the running statistics of `layers` to those of their inputs on `samples`; a
    layer that is not reached keeps its own."""
    seen = {layer: _Moments() for layer in layers}
    network.eval()
    hooks = [layer.register_forward_pre_hook(partial(_note, seen)) for layer in layers]
    # Two samples at least in each: one alone has no variance.
    parts = min(math.ceil(len(samples) / batch_size), len(samples) // 2)
    try:
        for layer in layers:
            layer.train()
        with torch.no_grad():
            for done, rows in enumerate(np.array_split(np.arange(len(samples)), parts)):
                batch = samples.batch(rows).inputs.values()
                network(*(torch.from_numpy(np.ascontiguousarray(array)) for array in batch))
                progress((done + 1) / parts, "batch norm statistics")
            for layer, moments in seen.items():
                moments.write(layer)
    finally:
        for hook in hooks:
            hook.remove()
        network.eval()


def _note(seen: dict[_BatchNorm, _Moments], layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(layer, _BatchNorm)
    seen[layer].add(inputs[0])


class _Moments:
    """Sums over all but the channels, in float64: E[x^2] - mean^2 loses digits in float32."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, x: Tensor) -> None:
        """`x` is (n, channels, ...)."""
        values = x.double().transpose(0, 1).flatten(1)
        self.count += values.shape[1]
        self.sum = self.sum + values.sum(1)
        self.squares = self.squares + values.square().sum(1)

    def write(self, layer: _BatchNorm) -> None:
        if self.count < 2 or layer.running_mean is None or layer.running_var is None:
            return
        mean = torch.as_tensor(self.sum) / self.count
        variance = torch.as_tensor(self.squares) / self.count - mean.square()
        layer.running_mean.copy_(mean)
        # The unbiased one, as torch's own running variance.
        layer.running_var.copy_(variance.clamp(min=0) * self.count / (self.count - 1))
