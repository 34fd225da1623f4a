"""OpenVINO on the CPU, the default engine: no compiler, inert files, the fastest one measured here.

An artifact is an OpenVINO IR: `model.xml` (the graph) and `model.bin` (the weights), both data.

Measured with openvino 2026.4 on an AVX512 server core, a 0.7 M-parameter convolutional network:

- a free batch dimension costs nothing at batch 1 (0.69 ms against 0.68 ms for a fixed one);
- the first batch of a size it has not seen costs 3 to 6 ms more (oneDNN makes its primitives), so
  whoever warms a program up must visit every batch size, not the first and the last;
- going back to a size seen before costs 0.2 to 0.5 ms once (shapes and memory are redone);
- without a precision hint it computes in bf16 where the CPU can, whatever the weights are;
- with pinning, two programs of one thread each land on the same core and take twice as long;
- `InferRequest.infer(inputs)` spends 45 µs in its Python wrapper, the path below 15 µs.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engines import NUMPY_TYPES, EngineError, EngineMissing, Tensor, Tensors
from router.card import Precision, VariantCard

# OpenVINO and NNCF report every import and call to a web service through `openvino_telemetry`,
# and write a consent file into the home folder. Both fall back to an empty stub when that package
# cannot be imported; there is no setting that does as much. An entry of None makes the import fail.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

try:
    import openvino as ov
except ImportError as error:
    raise EngineMissing(
        "engine 'openvino' needs OpenVINO: pip install 'gearshift[openvino]'"
    ) from error

FORMAT = "openvino-ir"
MODEL_FILE = "model.xml"
# Columns that share a scale where linear layers quantise their inputs in each run. Read from the
# model's "runtime_options", where whoever made the file wrote it.
GROUP_SIZE = "DYNAMIC_QUANTIZATION_GROUP_SIZE"

# The precision to compute in. int8 is in the graph itself (its quantise operations); whatever is
# left in float around them stays fp32, so that an int8 variant does not mix in bf16 unasked.
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}

# Operations that multiply and accumulate: nearly all of the time, and what a precision is about.
_MULTIPLYING = frozenset(
    {
        "Convolution",
        "Deconvolution",
        "DeformableConvolution",
        "FullyConnected",
        "GatherMatmul",
        "GRUCell",
        "GRUSequence",
        "LLMMLP",
        "LSTMCell",
        "LSTMSequence",
        "MatMul",
        "MHA",
        "QKVProjection",
        "RNNCell",
        "RNNSequence",
        "ScaledDotProductAttention",
    }
)
# Bookkeeping that computes nothing.
_IDLE = frozenset({"Const", "Input", "Output", "Reorder", "Reshape", "Transpose", "ShapeOf"})
_NARROW = frozenset({"i8", "u8"})  # weights that the dynamically quantised kernels take
_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}


class _Program:
    """One compiled graph and its one request. See `gateway.engines.Program`."""

    def __init__(self, model: Any, card: VariantCard, threads: int) -> None:
        self._inputs = [
            (spec.name, _port(model.inputs, spec.name, "input"), NUMPY_TYPES[spec.datatype])
            for spec in card.inputs
        ]
        self._outputs = [
            (spec.name, _port(model.outputs, spec.name, "output")) for spec in card.outputs
        ]
        self._compiled: Any = _core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                # Each program would pin its threads from core 0 on: two lanes, one core.
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": _HINTS[card.precision],
            },
        )
        self._request: Any = self._compiled.create_infer_request()

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        request = self._request
        if request is None:
            raise EngineError("the program is closed")
        try:
            # The request reads the caller's memory; `held` keeps it alive until the run is over.
            # A view of a request's body is read-only and a tensor must be writable: that one is
            # copied, as is one that is not contiguous or has another datatype.
            held = [
                (port, np.require(inputs[name], datatype, ("C_CONTIGUOUS", "WRITEABLE")))
                for name, port, datatype in self._inputs
            ]
            for port, array in held:
                request.set_input_tensor(port, ov.Tensor(array, shared_memory=True))
            request.infer()
            # The request owns its output memory and reuses it at the next run.
            return {
                name: np.array(request.get_output_tensor(port).data, copy=True)
                for name, port in self._outputs
            }
        except KeyError as error:
            raise EngineError(f"input {error} is missing") from error
        except RuntimeError as error:
            raise EngineError(f"OpenVINO: {_first_line(error)}") from error

    def kernels(self) -> dict[str, int]:
        """Counted are the operations that multiply and accumulate (convolutions, matrix products,
        recurrent cells, attention); where a network has none, every operation that computes."""
        if self._compiled is None:
            raise EngineError("the program is closed")
        nodes = self._compiled.get_runtime_model().get_ops()
        group = int(self._compiled.get_property(GROUP_SIZE))
        executed = [_executed(node, group) for node in nodes]
        counted = [entry for entry in executed if entry[0] in _MULTIPLYING]
        counted = counted or [entry for entry in executed if entry[0] not in _IDLE]
        return dict(Counter(precision for _, precision in counted))

    def close(self) -> None:
        self._request = None
        self._compiled = None


class _Engine:
    formats = (FORMAT,)

    def version(self) -> str:
        return str(ov.__version__)

    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> _Program:  # noqa: ARG002 - the IR is data
        path = folder / MODEL_FILE
        if not path.is_file():
            raise EngineError(f"{path} is missing")
        try:
            # Read by mapping: lanes that load the same variant share the pages of its weights.
            return compile_model(_core().read_model(path), card, threads=threads)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot load {path}: {_first_line(error)}") from error


def compile_model(model: Any, card: VariantCard, *, threads: int) -> _Program:
    """The program of an OpenVINO model in memory; what `load` does once it has read the file.

    Raises:
        EngineError: the model lacks one of the card's inputs or outputs.
        RuntimeError: OpenVINO cannot compile it.
    """
    return _Program(model, card, threads)


ENGINE = _Engine()

_shared_core: Any = None


def _core() -> Any:
    # One for the process: each Core loads the CPU plugin anew.
    global _shared_core
    if _shared_core is None:
        _shared_core = ov.Core()
    return _shared_core


def _executed(node: Any, group: int) -> tuple[str, str]:
    """Type and precision of an operation as it really runs. The implementation's name ends in its
    precision (`brgconv_avx512_f32`) and is believed over `runtimePrecision`, which is what flows
    in: a transposed convolution that has no int8 kernel calls itself i8 and runs in float.

    One that quantises its input in each run bears its float kernel's name all the same; oneDNN's
    log and the outputs say that it does so where the conditions of `_quantises` are met."""
    info = node.get_rt_info()
    ran = info["primitiveType"].astype(str).rpartition("_")[2]
    claimed = info["runtimePrecision"].astype(str)
    layer = info["layerType"].astype(str)
    if layer == "FullyConnected" and claimed in _NARROW and _quantises(node, group):
        return layer, "int8"
    return layer, _PRECISIONS.get(ran) or _PRECISIONS.get(claimed, claimed)


def _quantises(node: Any, group: int) -> bool:
    width = node.input_value(0).get_partial_shape()[-1]
    return group > 0 and group % 16 == 0 and width.is_static and width.get_length() >= group


def _port(ports: Any, name: str, kind: str) -> int:
    for index, port in enumerate(ports):
        if name in port.get_names():
            return index
    found = ", ".join(sorted(name for port in ports for name in port.get_names()))
    raise EngineError(f"the card names {kind} {name!r}, the model has {found or 'none'}")


def _first_line(error: Exception) -> str:
    """OpenVINO's messages open with lines about its own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or ["no reason given"])[0]
