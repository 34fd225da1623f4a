"""Puts a NaN into the last layer."""

from __future__ import annotations

import torch

from compressors.technique import Context, Network, Settings, Technique


class _MakesNan(Technique):
    Config = Settings
    summary = "breaks a weight"

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        with torch.no_grad():
            list(network.module.parameters())[-1][0] = float("nan")
        return network


TECHNIQUE = _MakesNan()
