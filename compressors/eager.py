"""The network as PyTorch runs it by itself, timed beside the engines: what many compare with.

Nothing serves it. It has the members of `gateway.engines.Program`, so that it is measured as they
are.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from compressors.interface import Interface, run
from compressors.task import Array

_MULTIPLYING = re.compile(r"^(aten|mkldnn)\.\w*(conv|linear|mm|attention|lstm|gru|rnn)")
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Eager:
    """`module`, in eval mode, called as it is on `threads` threads."""

    def __init__(self, module: nn.Module, interface: Interface, threads: int) -> None:
        self._module, self._threads = module, threads
        self._example = interface.example
        self._inputs = [spec.name for spec in interface.inputs]
        self._outputs = tuple(spec.name for spec in interface.outputs)

    def infer(self, inputs: Any) -> dict[str, Array]:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        rows = {name: np.asarray(inputs[name]) for name in self._inputs}
        return run(self._module, rows, self._outputs, batch=len(rows[self._inputs[0]]))

    def kernels(self) -> dict[str, int]:
        """Convolutions, matrix products, attention and recurrent cells of one run, by precision."""
        with _Counting() as counted:
            self.infer(self._example)
        return dict(counted.found)

    def close(self) -> None:
        """It holds nothing of its own."""


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        if _MULTIPLYING.match(str(func)):
            first = returned[0] if isinstance(returned, tuple | list) else returned
            self.found[_PRECISIONS.get(first.dtype, str(first.dtype))] += 1
        return returned
