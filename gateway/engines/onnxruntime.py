"""ONNX Runtime on the CPU: inert files that run almost anywhere, little overhead for each call.

An artifact is `model.onnx`: graph and weights in one protobuf file, all data.

Measured with onnxruntime 1.31 on an AVX512 server core: spinning between runs changes nothing for
one thread a lane, where there is no pool, and takes the other lane's core for more, so it is off.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engines import NUMPY_TYPES, EngineError, EngineMissing, Tensor, Tensors
from router.card import VariantCard

# From 1.29 on the official builds report sessions, models, errors and a persistent identifier of
# the device to a web service, on Linux too. Only this variable, and only before the library is
# imported, keeps it from writing that identifier and starting the uploader; the function
# `disable_telemetry_events` comes after the first event.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

try:
    import onnxruntime as ort
except ImportError as error:
    raise EngineMissing(
        "engine 'onnxruntime' needs ONNX Runtime: pip install 'gearshift[onnxruntime]'"
    ) from error

FORMAT = "onnx"
MODEL_FILE = "model.onnx"

_ERRORS_ONLY = 3

# Operations that multiply and accumulate: nearly all of the time, and what a precision is about.
# Fused ones keep such a name inside: FusedConv, QLinearConv, MatMulNBits, QAttention, BiasGelu not.
_MULTIPLYING = ("conv", "matmul", "gemm", "attention", "lstm", "gru", "rnn", "einsum")
# Quantise a float input themselves and multiply integers.
_DYNAMIC = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
# Bookkeeping that computes nothing.
_IDLE = frozenset(
    {
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MemcpyToHost",
        "Reshape",
        "Shape",
    }
    | {"Slice", "Squeeze", "Transpose", "Unsqueeze", "ReorderInput", "ReorderOutput"}
)
_PRECISIONS = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "double": "fp64",
    "int8": "int8",
    "uint8": "int8",
}


class _Program:
    """One session. See `gateway.engines.Program`."""

    def __init__(self, model: Path | bytes, card: VariantCard, threads: int) -> None:
        self._source = str(model) if isinstance(model, Path) else model
        self._threads = threads
        self._session: Any = ort.InferenceSession(
            self._source, _options(threads), providers=["CPUExecutionProvider"]
        )
        self._inputs = [(spec.name, NUMPY_TYPES[spec.datatype]) for spec in card.inputs]
        self._outputs = [spec.name for spec in card.outputs]
        self._free = {spec.name: spec.shape for spec in card.inputs}
        _same_names("input", [name for name, _ in self._inputs], self._session.get_inputs())
        _same_names("output", self._outputs, self._session.get_outputs())

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        session = self._session
        if session is None:
            raise EngineError("the program is closed")
        try:
            # The session reads the caller's memory where it is contiguous and of that datatype.
            given = {
                name: np.require(inputs[name], datatype, "C") for name, datatype in self._inputs
            }
        except KeyError as error:
            raise EngineError(f"input {error} is missing") from error
        try:
            return dict(zip(self._outputs, session.run(self._outputs, given), strict=True))
        except Exception as error:  # pybind's exception classes share no other base
            raise EngineError(f"ONNX Runtime: {_first_line(error)}") from error

    def kernels(self) -> dict[str, int]:
        """Counted are the operations that multiply and accumulate (convolutions, matrix products,
        recurrent cells, attention), as the profile of one run on zeros names them; where a network
        has none, every operation that computes."""
        if self._session is None:
            raise EngineError("the program is closed")
        zeros = {
            name: np.zeros([1 if size == -1 else size for size in self._free[name]], datatype)
            for name, datatype in self._inputs
        }
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            try:
                session = ort.InferenceSession(
                    self._source, options, providers=["CPUExecutionProvider"]
                )
                session.run(self._outputs, zeros)
                events = json.loads(Path(session.end_profiling()).read_bytes())
            except Exception as error:
                raise EngineError(f"ONNX Runtime: {_first_line(error)}") from error
        executed = dict(_executed(event) for event in events if _ran(event))
        counted = [
            kind
            for kind in executed.values()
            if any(word in kind[0].lower() for word in _MULTIPLYING)
        ]
        counted = counted or [kind for kind in executed.values() if kind[0] not in _IDLE]
        return dict(Counter(precision for _, precision in counted))

    def close(self) -> None:
        self._session = None


class _Engine:
    formats = (FORMAT,)

    def version(self) -> str:
        return str(ort.__version__)

    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> _Program:  # noqa: ARG002 - the file is data
        path = folder / MODEL_FILE
        if not path.is_file():
            raise EngineError(f"{path} is missing")
        try:
            return program(path, card, threads=threads)
        except EngineError:
            raise
        except Exception as error:  # pybind's exception classes share no other base
            raise EngineError(f"ONNX Runtime cannot load {path}: {_first_line(error)}") from error


def program(model: Path | bytes, card: VariantCard, *, threads: int) -> _Program:
    """The program of an ONNX model, from its file or as its bytes.

    Raises:
        EngineError: the model lacks one of the card's inputs or outputs.
        Exception: one of onnxruntime's own; it cannot load the model.
    """
    return _Program(model, card, threads)


ENGINE = _Engine()


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _ran(event: dict[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time")


def _executed(event: dict[str, Any]) -> tuple[str, tuple[str, str]]:
    """Node, then its type and precision: that of the data, which is its first input."""
    told = event["args"]
    types = [next(iter(each)) for each in told["input_type_shape"]]
    precision = _PRECISIONS.get(types[0], types[0]) if types else "fp32"
    kind = str(told["op_name"])
    return str(event["name"]), (kind, "int8" if kind in _DYNAMIC else precision)


def _same_names(kind: str, named: list[str], ports: list[Any]) -> None:
    found = {port.name for port in ports}
    for name in named:
        if name not in found:
            there = ", ".join(sorted(found)) or "none"
            raise EngineError(f"the card names {kind} {name!r}, the model has {there}")


def _first_line(error: Exception) -> str:
    """ONNX Runtime's messages open with its own code: `[ONNXRuntimeError] : 2 : REASON : text`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].removeprefix("[ONNXRuntimeError] : ") if lines else "no reason given"
