"""How many multiplications a network needs."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Multiplications of `module` on `inputs`: of convolutions, linear layers, attention and
    recurrent layers, counted as they run."""
    fast = torch.backends.mha.get_fastpath_enabled()
    # Fused operations are not counted: they run as what they are made of.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            torch.no_grad(),
            torch.backends.mkldnn.flags(enabled=False),
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            module(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2
