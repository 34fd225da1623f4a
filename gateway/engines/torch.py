"""PyTorch on the CPU: an AOTInductor package, an exported program that is interpreted, or weights
for a network that the task's own code makes.

`model.pt2` is either of the first two. One is a compiled library, the other is read by unpickling:
both can carry code. `weights.safetensors` is data, but the network around it is whatever the task
that the card names builds, by running its file or module, eagerly. So `load` refuses all of them
unless their store was marked as trusted.
"""

from __future__ import annotations

import importlib
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from gateway.engines import (
    NUMPY_TYPES,
    EngineError,
    EngineMissing,
    Tensor,
    Tensors,
    UntrustedArtifact,
)
from router.card import EngineRecord, VariantCard

try:
    import torch
    from safetensors.torch import load_file
    from torch.utils._python_dispatch import TorchDispatchMode
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
_MULTIPLYING = re.compile(r"conv|linear|\w*mm\b|attention|lstm|gru|rnn")
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
        except KeyError as error:
            raise EngineError(f"input {error} is missing") from error
        try:
            with torch.inference_mode():
                returned = self._run(*tensors)
            outputs = returned if isinstance(returned, tuple | list) else (returned,)
            return {
                name: tensor.numpy() for name, tensor in zip(self._outputs, outputs, strict=True)
            }
        except Exception as error:  # a task's own code may raise anything
            told = str(error).strip().splitlines() or ["no reason given"]
            raise EngineError(f"torch: {told[0]}") from error

    def kernels(self) -> dict[str, int]:
        """Counted are convolutions, matrix products, recurrent cells and attention: of a package
        as its compiled code calls them, of an exported program as its graph holds them, of a
        task's network as one run on zeros meets them."""
        return self._kernels()

    def close(self) -> None:
        self._run = None


class _Engine:
    formats = (PACKAGE, PROGRAM, TASK)

    def version(self) -> str:
        return str(torch.__version__)

    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> _Program:
        path = folder / (WEIGHTS_FILE if card.engine.format == TASK else MODEL_FILE)
        if not trusted:
            raise UntrustedArtifact(
                f"{path} can carry code: mark its store as trusted if it is your own"
                if card.engine.format != TASK
                else f"{path} needs the code of its task: mark its store as trusted if it is your "
                "own"
            )
        if not path.is_file():
            raise EngineError(f"{path} is missing")
        try:
            if card.engine.format == PACKAGE:
                package = torch._inductor.aoti_load_package(str(path))
                return _Program(package, card, threads, lambda: _package_kernels(path))
            if card.engine.format == TASK:
                return eager(_filled(card.engine, path), card, threads=threads)
            exported = torch.export.load(path)
            return _Program(exported.module(), card, threads, lambda: graph_kernels(exported))
        except EngineError:
            raise
        except Exception as error:
            # Compilers, dynamic linking, unpickling, a task's code: there is no common base.
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"torch cannot load {path}: {told[0]}") from error


ENGINE = _Engine()


def program(exported: Any, card: VariantCard, *, threads: int) -> _Program:
    """The program of an exported program in memory, interpreted."""
    return _Program(exported.module(), card, threads, lambda: graph_kernels(exported))


def eager(network: Any, card: VariantCard, *, threads: int) -> _Program:
    """The program of a network in memory, run as it is."""
    return _Program(network, card, threads, lambda: _eager_kernels(network, card))


def misfit(network: Any, weights: Mapping[str, Any]) -> str:
    """What keeps `weights` from being those of `network`; empty where nothing does."""
    own = network.state_dict()
    told = [f"{name} is not stored" for name in own if name not in weights]
    told += [f"the network has no {name}" for name in weights if name not in own]
    told += [
        f"{name} is {weights[name].dtype} {tuple(weights[name].shape)}, the network's is "
        f"{own[name].dtype} {tuple(own[name].shape)}"
        for name in own
        if name in weights
        and (own[name].shape != weights[name].shape or own[name].dtype != weights[name].dtype)
    ]
    more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
    return "; ".join(told[:3]) + more


def graph_kernels(exported: Any) -> dict[str, int]:
    """What multiplies and accumulates in an exported program, by precision."""
    counted: Counter[str] = Counter()
    for node in exported.graph.nodes:
        kind, _, name = str(node.target).partition(".")
        if node.op == "call_function" and kind == "aten" and _MULTIPLYING.match(name):
            value = node.meta["val"]
            counted[_precision(value[0] if isinstance(value, tuple | list) else value)] += 1
    return dict(counted)


def _precision(tensor: Any) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return _PRECISIONS.get(dtype, dtype)


def _filled(engine: EngineRecord, path: Path) -> Any:
    """The network of the task that the card names with the weights of `path`."""
    if (constructor := engine.constructor) is None:
        raise EngineError(f"{path}: the card names no task that makes the network")
    # By name at run time: nothing that serves inert files may need what builds variants.
    usertask = importlib.import_module("compressors.usertask")
    task = usertask.load(constructor)
    if engine.constructor_digest not in (None, task.source_digest):
        raise EngineError(
            f"{path} was built with other code than {task.file} holds now, which might compute "
            "something else with the same weights: bring that code back, or build the variant anew "
            "(gearshift compress --replace)"
        )
    network = task.network()
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise EngineError(f"{path} cannot be read: {error}") from error
    if problem := misfit(network, weights):
        raise EngineError(f"{path} does not fit the network of task {constructor}: {problem}")
    network.load_state_dict(weights, strict=True)
    return network.eval()


def _eager_kernels(network: Any, card: VariantCard) -> dict[str, int]:
    counted: Counter[str] = Counter()

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, function: Any, types: Any, arguments: Any = (), options: Any = None
        ) -> Any:
            returned = function(*arguments, **(options or {}))
            if _MULTIPLYING.search(str(function).partition(".")[2]):
                first = returned[0] if isinstance(returned, tuple | list) else returned
                counted[_precision(first)] += 1
            return returned

    zeros = [
        torch.from_numpy(
            np.zeros([1 if size == -1 else size for size in spec.shape], NUMPY_TYPES[spec.datatype])
        )
        for spec in card.inputs
    ]
    with torch.no_grad(), Count():  # type: ignore[no-untyped-call]
        network(*zeros)
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
