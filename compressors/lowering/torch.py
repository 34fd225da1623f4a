"""PyTorch: an AOTInductor package where a C++ compiler is present, an exported program where not.

Both are `model.pt2` and run with the `torch` engine. int8 is refused: of the routes there are,
the one through torchao breaks on attention and runs float kernels where freezing is off, and the
OpenVINO engine does the same work on the same CPUs.
"""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressors.draft import draft_card
from compressors.errors import BuildError, NotSupported
from compressors.export import export, first_line, quiet
from compressors.interface import Interface
from compressors.technique import Network
from gateway import engines
from gateway.engines import Program
from gateway.engines.torch import MODEL_FILE, PACKAGE, PROGRAM, TASK, WEIGHTS_FILE, program

# Freezing folds the weights in and picks oneDNN's layouts; it is off by default. Without dynamic
# threads the number of cores of this machine would be compiled in, whatever a lane is given.
_INDUCTOR = {"freezing": True, "cpp.dynamic_threads": True}


class _Lowering:
    def version(self) -> dict[str, str]:
        return {"torch": str(torch.__version__)}

    def format(self, network: Network, folder: Path | None = None) -> str:  # noqa: ARG002 - what is there decides
        if folder is not None and (folder / WEIGHTS_FILE).exists():
            return TASK
        return PACKAGE if _compiler() else PROGRAM

    def lower(self, network: Network, interface: Interface, folder: Path) -> Program:
        precision = network.numerics.precision
        if precision == "int8":
            raise NotSupported("the torch engine runs no int8 here; build it for openvino")
        if precision == "bf16" and not _has_bf16():
            raise NotSupported("this CPU has no bf16 arithmetic (AVX512-BF16 or AMX)")
        module = _InBfloat16(network.module) if precision == "bf16" else network.module
        exported = export(module.eval(), interface)
        path, format_ = folder / MODEL_FILE, self.format(network)
        card = draft_card("torch", format_, precision, interface.inputs, interface.outputs)
        if format_ == PROGRAM:
            with quiet():
                torch.export.save(exported, path)
            return program(exported, card, threads=1)
        try:
            with quiet(), torch.no_grad():
                torch._inductor.aoti_compile_and_package(
                    exported, package_path=str(path), inductor_configs=_INDUCTOR
                )
        except Exception as error:
            raise BuildError(
                f"AOTInductor cannot compile the network: {first_line(error)}"
            ) from error
        # A package has no form in memory apart from its file.
        return engines.get("torch").load(folder, card, threads=1, trusted=True)


LOWERING = _Lowering()


class _InBfloat16(nn.Module):
    """A copy of the network in bf16, float32 on both sides."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(inner).to(torch.bfloat16)

    def forward(self, *inputs: torch.Tensor) -> Any:
        narrow = [t.to(torch.bfloat16) if t.is_floating_point() else t for t in inputs]
        returned = self.inner(*narrow)
        if isinstance(returned, torch.Tensor):
            return _wide(returned)
        return tuple(_wide(tensor) for tensor in returned)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _compiler() -> str | None:
    """The C++ compiler that AOTInductor would use."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return next((found for name in wanted if (found := shutil.which(name))), None)
