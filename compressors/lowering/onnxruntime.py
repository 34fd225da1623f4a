"""ONNX: torch.export, then `torch.onnx`, then ONNX Runtime's own quantisers for int8. No compiler.

int8 with ranges seen in calibration becomes pairs of QuantizeLinear and DequantizeLinear around
each operation, which ONNX Runtime fuses into integer kernels when it loads the file. Of the two
ways to place them, its own quantiser is used and not NNCF's: on a small convolutional network the
outputs' relative error was 0.013 against 0.088 at the same speed, and all four layers ran in int8
against three. With ranges from each run's own values, matrix products and recurrent cells are
replaced by integer ones; convolutions stay in float, whose dynamic integer form is the slower one.

16-bit floats are refused: ONNX Runtime's CPU kernels would convert to float32 and back.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gateway.engines.onnxruntime as engine  # first: it keeps ONNX Runtime from reporting home
from compressors.draft import draft_card
from compressors.errors import BuildError, NotSupported, RecipeError
from compressors.export import export, first_line, quiet
from compressors.interface import Interface
from compressors.technique import Network, Numerics
from gateway.engines import EngineError, Program

import onnxruntime  # isort: skip

try:
    import onnx
    import onnxscript
    from onnxruntime import quantization
except ImportError as error:
    raise NotSupported(
        "lowering to 'onnxruntime' needs onnx and onnxscript: pip install 'gearshift[compress]'"
    ) from error

# Long out of experiment, and what both quantisers know.
_OPSET = 20
_OPTIONS = frozenset({"preset"})
_DYNAMIC_OPERATIONS = ["MatMul", "Gemm", "LSTM", "GRU"]
_SCOPES = "pkg.torch.onnx.name_scopes"


class _Lowering:
    def version(self) -> dict[str, str]:
        return {
            "onnxruntime": str(onnxruntime.__version__),
            "onnx": str(onnx.__version__),
            "onnxscript": str(onnxscript.__version__),
        }

    def format(self, network: Network, folder: Path | None = None) -> str:  # noqa: ARG002 - one
        return engine.FORMAT

    def lower(self, network: Network, interface: Interface, folder: Path) -> Program:
        numerics = network.numerics
        _supported(numerics)
        model = _convert(network, interface)
        if numerics.precision == "int8" and numerics.ranges != "trained":
            model = _quantize(model, numerics, interface, folder / engine.MODEL_FILE)
        onnx.save_model(model, folder / engine.MODEL_FILE)
        _check(folder / engine.MODEL_FILE)
        card = draft_card(
            "onnxruntime",
            engine.FORMAT,
            numerics.precision,
            interface.inputs,
            interface.outputs,
        )
        try:
            return engine.program(model.SerializeToString(), card, threads=1)
        except EngineError:
            raise
        except Exception as error:
            raise BuildError(
                f"ONNX Runtime cannot load the network: {first_line(error)}"
            ) from error


LOWERING = _Lowering()


def _supported(numerics: Numerics) -> None:
    if numerics.precision in ("bf16", "fp16"):
        raise NotSupported(
            f"the onnxruntime engine computes no {numerics.precision} on CPUs: it converts to "
            "float32 and back, which is slower than float32; build it for openvino"
        )
    if numerics.weights is not None:
        raise NotSupported(
            f"the onnxruntime engine is given no {numerics.weights} weights with "
            f"{numerics.precision} arithmetic here; build it for openvino"
        )
    if unknown := set(numerics.options) - _OPTIONS:
        raise RecipeError(
            f"the onnxruntime engine does not know the int8 options {', '.join(sorted(unknown))}; "
            f"it knows {', '.join(sorted(_OPTIONS))}"
        )
    observed = numerics.precision == "int8" and numerics.ranges == "calibration"
    if observed and numerics.calibration is None:
        raise BuildError("int8 needs calibration samples and the technique gave none")


def _convert(network: Network, interface: Interface) -> Any:
    exported = export(network.module, interface)
    try:
        with quiet(), torch.no_grad():
            converted: Any = torch.onnx.export(
                exported,
                dynamo=True,
                input_names=[spec.name for spec in interface.inputs],
                output_names=[spec.name for spec in interface.outputs],
                opset_version=_OPSET,
                verbose=False,
            )
    except Exception as error:
        raise BuildError(f"torch.onnx cannot convert the network: {first_line(error)}") from error
    model = converted.model_proto
    # Shapes in between are inferred anew by whoever reads the file; after a quantiser has
    # transposed a weight the old ones would contradict it.
    del model.graph.value_info[:]
    for port in (*model.graph.input, *model.graph.output):
        dimensions = port.type.tensor_type.shape.dim
        if len(dimensions) and dimensions[0].dim_param:
            dimensions[0].dim_param = "batch"
    return model


def _quantize(model: Any, numerics: Numerics, interface: Interface, path: Path) -> Any:
    common: dict[str, Any] = {
        "per_channel": True,
        "weight_type": quantization.QuantType.QInt8,
        # Without VNNI, products of 8 bits with 8 are added up in pairs in 16 bits and overflow.
        "reduce_range": not torch.cpu._is_vnni_supported(),
        "nodes_to_exclude": _within(model, numerics.floats),
    }
    try:
        with quiet():
            if numerics.ranges == "runtime":
                quantization.quantize_dynamic(
                    model, path, op_types_to_quantize=_DYNAMIC_OPERATIONS, **common
                )
            else:
                quantization.quantize_static(
                    model,
                    path,
                    _Rows(numerics, interface),
                    activation_type=quantization.QuantType.QUInt8,
                    extra_options={
                        "ActivationSymmetric": numerics.options.get("preset") == "performance"
                    },
                    **common,
                )
    except Exception as error:
        raise BuildError(
            f"ONNX Runtime cannot quantise the network: {first_line(error)}"
        ) from error
    return onnx.load_model(path)


class _Rows(quantization.CalibrationDataReader):  # type: ignore[misc]
    """The calibration samples, one at a time."""

    def __init__(self, numerics: Numerics, interface: Interface) -> None:
        self._rows: Iterator[dict[str, Any]] = _rows(numerics, interface)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rows, None)


def _rows(numerics: Numerics, interface: Interface) -> Iterator[dict[str, Any]]:
    samples = numerics.calibration
    assert samples is not None  # checked before anything was exported
    for i in range(len(samples)):
        yield {
            spec.name: np.ascontiguousarray(samples.inputs[spec.name][i : i + 1])
            for spec in interface.inputs
        }


def _within(model: Any, modules: tuple[str, ...]) -> list[str]:
    """The names of the operations that come from `modules`.

    Raises:
        BuildError: a module has none.
    """
    found: dict[str, list[str]] = {module: [] for module in modules}
    for node in model.graph.node:
        told = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(told.get(_SCOPES, "[]"))
        for module in modules:
            # A convolution that a normalisation was folded into counts as the latter's; its
            # weights keep their name.
            weights = any(name.startswith(f"{module}.") for name in node.input)
            if weights or module in scopes:
                found[module].append(node.name)
    if missing := [module for module, nodes in found.items() if not nodes]:
        raise BuildError(
            f"{', '.join(missing)} shall stay in float, and no operation of the exported network "
            "comes from there"
        )
    return [name for nodes in found.values() for name in nodes]


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        raise BuildError(f"the ONNX file is not valid: {first_line(error)}") from error
