"""int8: post-training static quantisation (Jacob et al. 2018, arXiv 1712.05877; overview: Nagel et
al. 2021, arXiv 2106.08295).

Weights and activations of convolutions and linear layers become 8-bit integers. Their ranges are
those seen on a few training samples, drawn by seed; nothing is trained. The engine's lowering does
it on its own graph, because what runs as int8 is the engine's to say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field
from torch import nn

from compressors.errors import NotApplicable
from compressors.technique import Context, Network, Numerics, Settings, Technique

_QUANTISED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.MultiheadAttention)


class _Config(Settings):
    calibration_samples: int = Field(
        300, ge=1, le=100_000, description="training samples to find the value ranges on"
    )
    preset: Literal["performance", "mixed"] | None = Field(
        None, description="symmetric ranges, or asymmetric ones for activations; None: engine's own"
    )
    fast_bias_correction: bool | None = Field(
        None, description="False: a slower, closer correction of biases; None: the engine's own"
    )
    model_type: Literal["transformer"] | None = Field(
        None, description="special care for transformers, where the engine has it"
    )


class _Int8(Technique):
    Config = _Config
    needs = frozenset({"calibration"})
    numerics = "int8"
    summary = "Quantises weights and activations to 8-bit integers after training."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The same module, to be executed in int8, with its calibration samples.

        Raises:
            NotApplicable: the network has no layer that integers could compute.
        """
        if not any(isinstance(module, _QUANTISED) for module in network.module.modules()):
            raise NotApplicable("int8: the network has no convolution and no linear layer")
        train = context.task.samples("train")
        count = min(config.calibration_samples, len(train))
        rows = np.random.default_rng(context.seed).choice(len(train), count, replace=False)
        options = config.model_dump(exclude={"calibration_samples"}, exclude_none=True)
        return replace(
            network, numerics=Numerics("int8", calibration=train.batch(rows), options=options)
        )


TECHNIQUE = _Int8()
