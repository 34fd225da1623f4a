"""PyTorch on the CPU: an AOTInductor package, or an exported program that is interpreted.

`model.pt2` is either. The first is a compiled library, the second is read by unpickling: both can
carry code, so `load` refuses them unless their store was marked as trusted.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engines import (
    NUMPY_TYPES,
    EngineError,
    EngineMissing,
    Tensor,
    Tensors,
    UntrustedArtifact,
)
from router.card import VariantCard

try:
    import torch
except ImportError as error:
    raise EngineMissing("engine 'torch' needs PyTorch: pip install 'gearshift[torch]'") from error

PACKAGE = "torch-aotinductor"
PROGRAM = "torch-export"
TASK = "task"
MODEL_FILE = "model.pt2"
WEIGHTS_FILE = "weights.safetensors"

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
# Operations that multiply and accumulate, as the compiled code calls them: oneDNN's fused ones,
# its quantised ones, and the plain matrix products.
_CALL = re.compile(
    r"aoti_torch_cpu_(?P<op>(?:mkldnn_?)?_?q?(?:convolution|conv\w*|linear|mm|addmm|bmm|baddbmm)"
    r"\w*)\((?P<arguments>[^;]*);"
)
_CONSTANT = re.compile(
    r'constants_info_\[(\d+)\]\.name = "(?P<name>[^"]+)";\s*'
    r"constants_info_\[\1\]\.dtype = cached_torch_dtype_(?P<dtype>\w+);"
)


class _Program:
    """See `gateway.engines.Program`."""

    def __init__(
        self,
        run: Callable[..., Any],
        card: VariantCard,
        threads: int,
        kernels: Callable[[], dict[str, int]],
    ) -> None:
        self._run: Callable[..., Any] | None = run
        self._inputs = [(spec.name, NUMPY_TYPES[spec.datatype]) for spec in card.inputs]
        self._outputs = [spec.name for spec in card.outputs]
        self._threads = threads
        self._kernels = kernels

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        if self._run is None:
            raise EngineError("the program is closed")
        # OpenMP keeps this number per thread, so a lane sets it where it runs.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        try:
            tensors = [
                torch.from_numpy(np.require(inputs[name], datatype, ("C", "W")))
                for name, datatype in self._inputs
            ]
            with torch.inference_mode():
                returned = self._run(*tensors)
            outputs = returned if isinstance(returned, tuple | list) else (returned,)
            return {
                name: tensor.numpy() for name, tensor in zip(self._outputs, outputs, strict=True)
            }
        except KeyError as error:
            raise EngineError(f"input {error} is missing") from error
        except (RuntimeError, ValueError, AssertionError) as error:
            told = str(error).strip().splitlines() or ["no reason given"]
            raise EngineError(f"torch: {told[0]}") from error

    def kernels(self) -> dict[str, int]:
        """Counted are convolutions and matrix products: of a package as its compiled code calls
        them, of an exported program as its graph holds them."""
        return self._kernels()

    def close(self) -> None:
        self._run = None


class _Engine:
    formats = (PACKAGE, PROGRAM)

    def version(self) -> str:
        return str(torch.__version__)

    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> _Program:
        path = folder / MODEL_FILE
        if not trusted:
            raise UntrustedArtifact(
                f"{path} can carry code: mark its store as trusted if it is your own"
            )
        if not path.is_file():
            raise EngineError(f"{path} is missing")
        try:
            if card.engine.format == PACKAGE:
                package = torch._inductor.aoti_load_package(str(path))
                return _Program(package, card, threads, lambda: _package_kernels(path))
            exported = torch.export.load(path)
            return _Program(exported.module(), card, threads, lambda: graph_kernels(exported))
        except Exception as error:
            # Compilers, dynamic linking, unpickling: there is no common base.
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"torch cannot load {path}: {told[0]}") from error


ENGINE = _Engine()


def program(exported: Any, card: VariantCard, *, threads: int) -> _Program:
    """The program of an exported program in memory, interpreted."""
    return _Program(exported.module(), card, threads, lambda: graph_kernels(exported))


def graph_kernels(exported: Any) -> dict[str, int]:
    """Convolutions and matrix products of an exported program by precision."""
    counted: Counter[str] = Counter()
    for node in exported.graph.nodes:
        name = str(node.target)
        if node.op == "call_function" and re.search(r"aten\.(conv|linear|\w*mm)", name):
            dtype = str(node.meta["val"].dtype).removeprefix("torch.")
            counted[_PRECISIONS.get(dtype, dtype)] += 1
    return dict(counted)


def _package_kernels(path: Path) -> dict[str, int]:
    """Out of the generated C++ that AOTInductor packs beside its library: what is called, and on
    weights of which type."""
    with zipfile.ZipFile(path) as package:
        source = "\n".join(
            package.read(name).decode()
            for name in package.namelist()
            if name.endswith(".wrapper.cpp")
        )
    dtypes = {match["name"]: match["dtype"] for match in _CONSTANT.finditer(source)}
    counted: Counter[str] = Counter()
    for call in _CALL.finditer(source):
        if re.search(r"_q(?:conv|linear)", f"_{call['op']}"):
            counted["int8"] += 1
            continue
        # The weight is the first argument that names a constant.
        named = re.findall(r"\w+", call["arguments"])
        dtype = next((dtypes[name] for name in named if name in dtypes), "float32")
        counted[_PRECISIONS.get(dtype, dtype)] += 1
    return dict(counted)
