"""bf16 until the real technique lands."""

from __future__ import annotations

from compressors.technique import Context, Network, Numerics, Settings, Technique


class _Bf16(Technique):
    Config = Settings
    precision = "bf16"
    summary = "16-bit floats"

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        return Network(network.module, Numerics("bf16"))


TECHNIQUE = _Bf16()
