"""Asks for int8 on a network most of which the engine executes in float all the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compressors.technique import Context, Network, Numerics, Settings, Technique


class _FloatMostly(nn.Module):
    """OpenVINO has no int8 kernel for a transposed convolution with a stride above 3: it executes
    the quantised graph in float, without a word."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.up = nn.ModuleList(nn.ConvTranspose2d(10, 10, 4, stride=4) for _ in range(6))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pixels = self.inner(image)[:, :, None, None]
        for layer in self.up:
            pixels = pixels + 0.1 * layer(pixels).mean((2, 3), keepdim=True)
        return pixels[:, :, 0, 0]


class _ClaimsInt8(Technique):
    Config = Settings
    numerics = "int8"
    summary = "claims int8 and runs float"

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        train = context.task.samples("train")
        return Network(
            _FloatMostly(network.module),
            Numerics("int8", calibration=train.batch(np.arange(8))),
        )


TECHNIQUE = _ClaimsInt8()
