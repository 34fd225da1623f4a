"""Returns one output less than the reference."""

from __future__ import annotations

import torch
from torch import nn

from compressors.technique import Context, Network, Settings, Technique


class _Narrow(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.inner(image)[:, :-1]


class _DropsAClass(Technique):
    Config = Settings
    summary = "drops a class"

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        return Network(_Narrow(network.module))


TECHNIQUE = _DropsAClass()
