"""Echo: runs nothing and answers zeros. For measuring the gateway itself, and for its tests.

A folder of format `echo` may hold `echo.json`, which makes the variant slow or faulty on purpose:

    {"delay_ms": 5}          each run takes that long, with the interpreter lock released
    {"delay_after": 3}       only the third run and every later one is delayed
    {"mirror": true}         each row of the outputs is filled with that row's first input value
    {"fail_after": 3}        the third run and every later one fails
    {"fail_length": 7}       a run whose first input's rows have length 7 fails
    {"fail_load": true}      loading fails
    {"wrong_shape": true}    outputs have one row too many
    {"nan": true}            outputs of a float type are NaN
    {"fault_file": PATH}     while that file is there, each run has the fault that it names

The file may hold `raise`, `hang` (until the file is gone or says something else), `seize` (for
five minutes, and no other thread of the process runs), `nan`, `shape`, or `exit` (the process ends,
as one that crashes does).
With a number behind it, such as `raise 7`, only runs with a row whose first value is that number
have it, and of `nan` only that row.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.engines import NUMPY_TYPES, EngineError, Tensor, Tensors, blank
from router.card import VariantCard

OPTIONS_FILE = "echo.json"
_HANG_POLL_S = 0.02


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    delay_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    delay_after: Annotated[int, Field(ge=1)] = 1
    mirror: bool = False
    fail_after: Annotated[int, Field(ge=1)] | None = None
    fail_length: Annotated[int, Field(ge=1)] | None = None
    fail_load: bool = False
    wrong_shape: bool = False
    nan: bool = False
    fault_file: Path | None = None


def _firsts(tensor: Tensor) -> Tensor:
    """The first value of each row."""
    return tensor.reshape(len(tensor), -1)[:, 0]


def _read(path: Path) -> tuple[str, float | None]:
    try:
        fault, *value = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return "", None
    return fault, float(value[0]) if value else None


class _Program:
    def __init__(self, card: VariantCard, options: _Options) -> None:
        self._options = options
        self._input = card.inputs[0].name
        self._outputs = [
            # A free dimension beyond the batch has no size of its own: 1.
            (
                spec.name,
                tuple(1 if size == -1 else size for size in spec.shape[1:]),
                spec.datatype,
                NUMPY_TYPES[spec.datatype],
            )
            for spec in card.outputs
        ]
        self._runs = 0

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        options = self._options
        self._runs += 1
        if options.delay_ms and self._runs >= options.delay_after:
            time.sleep(options.delay_ms / 1000)
        if options.fail_after is not None and self._runs >= options.fail_after:
            raise EngineError(
                f"echo fails from run {options.fail_after} on, as {OPTIONS_FILE} asks"
            )
        if inputs[self._input].shape[1:2] == (options.fail_length,):
            raise EngineError(
                f"echo fails on rows of length {options.fail_length}, as {OPTIONS_FILE} asks"
            )
        given = inputs[self._input]
        fault, hit = self._fault(given) if options.fault_file else ("", slice(None))
        rows = len(given) + (options.wrong_shape or fault == "shape")
        outputs = {
            # Twice as fast as `blank`, for what measures the gateway alone.
            name: blank(kind, (rows, *shape))
            if kind == "BYTES"
            else np.zeros((rows, *shape), plain)
            for name, shape, kind, plain in self._outputs
        }
        if options.mirror and rows == len(given):
            for output in outputs.values():
                output.T[:] = _firsts(given)
        if options.nan or fault == "nan":
            for output in outputs.values():
                if output.dtype.kind == "f":
                    output[hit] = np.nan
        return outputs

    def _fault(self, given: Tensor) -> tuple[str, Any]:
        """The fault that this run has now, if any, and which rows it hits."""
        path = self._options.fault_file
        assert path is not None
        fault, value = _read(path)
        hit: Any = slice(None) if value is None else _firsts(given) == value
        if value is not None and not hit.any():
            return "", slice(None)
        if fault == "raise":
            raise EngineError(f"echo fails, as {path.name} asks")
        if fault == "exit":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "seize":
            ctypes.PyDLL(None).sleep(300)  # which does not let go of the interpreter's lock
        while fault == "hang" and _read(path) == (fault, value):
            time.sleep(_HANG_POLL_S)
        return fault, hit

    def kernels(self) -> dict[str, int]:
        return {"fp32": 1}

    def close(self) -> None:
        """Holds nothing."""


class _Engine:
    formats = ("echo",)

    def version(self) -> str:
        return "1"

    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> _Program:  # noqa: ARG002 - nothing runs
        path = folder / OPTIONS_FILE
        try:
            options = (
                _Options.model_validate_json(path.read_bytes()) if path.exists() else _Options()
            )
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"]) or "the file"
            raise EngineError(f"{path}: {where}: {problem['msg']}") from error
        if options.fail_load:
            raise EngineError(f"echo refuses to load, as {path} asks")
        return _Program(card, options)


ENGINE = _Engine()
