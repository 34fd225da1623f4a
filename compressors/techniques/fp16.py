"""fp16: 16-bit floats of IEEE 754, 11 bits of precision from 6e-8 to 65504 (Micikevicius et al.
2017, "Mixed Precision Training", arXiv 1710.03740, on what they are good for).

The weights are rounded to them here, so that the file can hold them in half the bytes with nothing
more lost. A CPU that multiplies 16-bit floats does so; any other widens them while it loads and
computes in float32, at float32's speed.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from compressors.errors import NotApplicable
from compressors.technique import Context, Network, Numerics, Settings, Technique
from router.card import Precision

_LARGEST = torch.finfo(torch.float16).max


class _Fp16(Technique):
    Config = Settings
    numerics = "fp16"
    summary = "Stores weights as 16-bit floats, and computes in them where the CPU can."

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        """The module with its parameters rounded to 16 bits, to be stored so.

        Raises:
            NotApplicable: no parameter is a floating-point number, or one is out of range.
        """
        round_parameters(network.module)
        precision: Precision = "fp16" if torch.ops.mkldnn._is_mkldnn_fp16_supported() else "fp32"
        return replace(network, numerics=Numerics(precision, weights="fp16"))


TECHNIQUE = _Fp16()


def round_parameters(module: nn.Module) -> None:
    """Round every floating-point parameter to the nearest 16-bit float, in place.

    Raises:
        NotApplicable: as `apply` does.
    """
    floats = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    if not floats:
        raise NotApplicable("fp16: the network has no floating-point weights")
    for name, parameter in floats.items():
        if parameter.abs().max() > _LARGEST:
            raise NotApplicable(
                f"fp16: {name} holds {parameter.abs().max():g}, and the largest 16-bit float is "
                f"{_LARGEST:g}"
            )
    with torch.no_grad():
        for parameter in floats.values():
            parameter.copy_(parameter.to(torch.float16))
