"""int8-dynamic: 8-bit weights, and activations quantised anew in each run (as in Jacob et al. 2018,
arXiv 1712.05877, with ranges by group as in ZeroQuant, Yao et al. 2022, arXiv 2206.01861).

No samples are needed, and nothing can lie outside of a range seen before: what a run multiplies has
that run's own ranges, one for every `group_size` neighbouring inputs of a row. Finding them costs
time in every run, so `int8` is faster where its accuracy holds. Of use to transformers and other
networks of wide linear layers; convolutions stay in float on the engines here, and a network that
is mostly those is refused by the lowering.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from compressors.errors import NotApplicable
from compressors.quantising import calibration
from compressors.technique import Context, Network, Numerics, Settings, Technique


class _Config(Settings):
    group_size: Literal[16, 32, 64, 128, 256] | None = Field(
        None,
        description="inputs that share a range: more is faster, fewer is closer; None: the fastest "
        "that every layer has room for",
    )


class _Int8Dynamic(Technique):
    Config = _Config
    numerics = "int8"
    summary = "Quantises weights to 8-bit integers, and activations while it runs."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:  # noqa: ARG002
        """The same module, to be executed in int8 with ranges found in each run.

        Raises:
            NotApplicable: the network has no linear layer.
        """
        if not calibration.has_linear(network.module):
            raise NotApplicable("int8-dynamic: the network has no linear layer")
        options = config.model_dump(exclude_none=True)
        return replace(network, numerics=Numerics("int8", ranges="runtime", options=options))


TECHNIQUE = _Int8Dynamic()
