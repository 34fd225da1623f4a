"""A network whose path depends on its data: nothing can export it."""

from __future__ import annotations

import torch
from torch import nn

from compressors.technique import Context, Network, Settings, Technique


class _Moody(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.inner(image)
        return logits * 2 if float(logits.sum()) > 1e9 else logits


class _Untraceable(Technique):
    Config = Settings
    summary = "branches on data"

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        return Network(_Moody(network.module))


TECHNIQUE = _Untraceable()
