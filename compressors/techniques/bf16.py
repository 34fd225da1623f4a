"""bf16: 16-bit brain floats, float32's range with 8 bits of precision (Kalamkar et al. 2019,
"A Study of BFLOAT16 for Deep Learning Training", arXiv 1905.12322).

The weights stay as they are: the engine rounds and multiplies. A CPU without bf16 arithmetic
would only emulate it, slower than float32; the lowering refuses there.
"""

from __future__ import annotations

from dataclasses import replace

from compressors.errors import NotApplicable
from compressors.technique import Context, Network, Numerics, Settings, Technique


class _Bf16(Technique):
    Config = Settings
    numerics = "bf16"
    summary = "Computes in 16-bit brain floats."

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        """The same module, to be executed in bf16.

        Raises:
            NotApplicable: no parameter is a floating-point number.
        """
        if not any(p.is_floating_point() for p in network.module.parameters()):
            raise NotApplicable("bf16: the network has no floating-point weights")
        return replace(network, numerics=Numerics("bf16"))


TECHNIQUE = _Bf16()
