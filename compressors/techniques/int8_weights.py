"""int8-weights: weights in 8 bits, arithmetic in float (weight-only quantisation; LLM.int8(),
Dettmers et al. 2022, arXiv 2208.07339, has the same rounding).

Each row of a weight matrix, or output channel of a convolution, keeps 8-bit integers q and one
scale s, w ~ s q with s = max|w| / 127. A file of a quarter of the size, nearly float's accuracy and
float's speed: the weights are widened before they are multiplied, so it pays where memory or
loading is what is short.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from compressors.errors import NotApplicable
from compressors.quantising import calibration
from compressors.technique import Context, Network, Numerics, Settings, Technique


class _Config(Settings):
    symmetric: bool = Field(
        True, description="no zero point; False: one for every row, a little closer"
    )


class _Int8Weights(Technique):
    Config = _Config
    numerics = "int8"
    summary = "Stores weights as 8-bit integers and computes in float."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:  # noqa: ARG002
        """The same module, to be stored with 8-bit weights.

        Raises:
            NotApplicable: the network has no layer whose weights can be stored so.
        """
        if not calibration.has_quantised(network.module):
            raise NotApplicable("int8-weights: the network has no convolution and no linear layer")
        return replace(network, numerics=Numerics(weights="int8", options=config.model_dump()))


TECHNIQUE = _Int8Weights()
