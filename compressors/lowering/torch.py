"""PyTorch: an AOTInductor package where a C++ compiler is present, an exported program where not.

Both are `model.pt2` and run with the `torch` engine. int8 is refused: of the routes there are,
the one through torchao breaks on attention and runs float kernels where freezing is off, and the
OpenVINO engine does the same work on the same CPUs.

A network that cannot be exported, because its path depends on its data, is kept as its weights
alone, which fit the network that the task makes as long as no step changed its structure.
"""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from compressors import usertask, verify
from compressors.draft import draft_card
from compressors.errors import BuildError, NotSupported
from compressors.export import export, first_line, quiet
from compressors.interface import Interface, run
from compressors.technique import Network
from gateway import engines
from gateway.engines import Program
from gateway.engines.torch import (
    MODEL_FILE,
    PACKAGE,
    PROGRAM,
    TASK,
    WEIGHTS_FILE,
    eager,
    misfit,
    program,
)

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
        try:
            exported = export(module.eval(), interface)
        except BuildError as error:
            return _weights(network, interface, folder, error)
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


def _weights(network: Network, interface: Interface, folder: Path, reason: BuildError) -> Program:
    """The network as weights for the task's own; `reason` is what kept it from being exported.

    Raises:
        BuildError: that, and why its weights alone will not do either.
    """

    def impossible(why: str) -> BuildError:
        return BuildError(f"{reason}; nor can its weights be kept for the task's own code: {why}")

    module, precision = network.module, network.numerics.precision
    if precision != "fp32" or network.numerics.weights is not None:
        raise impossible(f"that runs in fp32, not {precision}")
    if interface.constructor is None:
        raise impossible("the task comes from no file or module")
    fresh = usertask.load(interface.constructor).network()
    # Copies: a file cannot hold one tensor under two names.
    weights = {
        name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()
    }
    if problem := misfit(fresh, weights):
        raise impossible(f"a step changed the structure: {problem}")
    fresh.load_state_dict(weights)
    names = tuple(spec.name for spec in interface.outputs)
    own = run(module, interface.example, names)
    for name, array in run(fresh.eval(), interface.example, names).items():
        if not verify.relative_error(own[name], array) <= verify.TOLERANCE["fp32"]:
            raise impossible(f"with the same weights it computes another {name}")
    save_file(weights, folder / WEIGHTS_FILE)
    card = draft_card(
        "torch",
        TASK,
        precision,
        interface.inputs,
        interface.outputs,
        interface.constructor,
        interface.constructor_digest,
    )
    return eager(module, card, threads=1)


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
