"""A network that computes something else when it is exported."""

from __future__ import annotations

import torch
from torch import nn

from compressors.technique import Context, Network, Settings, Technique


class _Twofaced(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.inner(image)
        return logits.flip(1) if torch.compiler.is_exporting() else logits


class _ExportsOtherwise(Technique):
    Config = Settings
    summary = "differs when exported"

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        return Network(_Twofaced(network.module))


TECHNIQUE = _ExportsOtherwise()
