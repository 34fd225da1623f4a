"""Asks for more memory than any machine has."""

from __future__ import annotations

import torch

from compressors.technique import Context, Network, Settings, Technique


class _ExhaustsMemory(Technique):
    Config = Settings
    summary = "asks for 2^60 bytes"

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        torch.empty(2**60, dtype=torch.uint8)
        return network


TECHNIQUE = _ExhaustsMemory()
