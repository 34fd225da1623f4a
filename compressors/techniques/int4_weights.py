"""int4-weights: weights in 4 bits, arithmetic in float (weight-only quantisation).

Each row of a weight matrix is cut into groups that keep 4-bit integers q and a scale s, w ~ s q.
Sixteen values are few, so two remedies use samples: AWQ (Lin et al. 2023, arXiv 2306.00978) scales
up the inputs' channels that matter before rounding, and scale estimation fits s to the layer's
outputs on samples by least squares, not to the weights' maximum. `ratio` leaves the layers that
lose most in 8 bits, as are embeddings and the last layer.

A file of a sixth to an eighth of the size, at float's speed; convolutions keep 8 bits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from compressors.errors import NotApplicable
from compressors.quantising import calibration
from compressors.technique import Context, Network, Numerics, Settings, Technique


class _Config(Settings):
    group_size: Literal[16, 32, 64, 128, -1] = Field(
        64, description="weights of a row that share a scale; -1: the whole row"
    )
    ratio: float = Field(
        1.0, ge=0, le=1, description="share of the weights in 4 bits; the others get 8"
    )
    symmetric: bool = Field(
        True, description="no zero point; False: one for every group, a little closer"
    )
    awq: bool = Field(False, description="scale up the channels that matter before rounding")
    scale_estimation: bool = Field(
        False, description="fit scales to the layers' outputs on samples, by least squares"
    )
    calibration_samples: int = Field(
        128, ge=1, le=100_000, description="training samples for awq and scale_estimation"
    )


class _Int4Weights(Technique):
    Config = _Config
    needs = frozenset({"calibration"})
    numerics = "int4"
    summary = "Stores weights as 4-bit integers and computes in float."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The same module, to be stored with 4-bit weights, with samples where a setting needs any.

        Raises:
            NotApplicable: the network has no linear layer.
        """
        if not calibration.has_linear(network.module):
            raise NotApplicable("int4-weights: the network has no linear layer")
        samples = None
        if config.awq or config.scale_estimation:
            samples = calibration.draw(context.task, config.calibration_samples, context.seed)
        options = config.model_dump(exclude={"calibration_samples"})
        return replace(
            network, numerics=Numerics(weights="int4", calibration=samples, options=options)
        )


TECHNIQUE = _Int4Weights()
