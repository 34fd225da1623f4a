"""OpenVINO IR: torch.export, then `openvino.convert_model`, then NNCF for int8. No compiler needed.

bf16 is no other file: the same weights run with the engine's precision hint, which the card's
precision sets. int8 is post-training static quantisation of the OpenVINO graph, whose quantise
operations become part of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rich

import gateway.engines.openvino as engine  # first: it keeps OpenVINO and NNCF from reporting home
from compressors.draft import draft_card
from compressors.errors import BuildError, NotSupported, RecipeError
from compressors.export import export, first_line, quiet
from compressors.interface import Interface
from compressors.technique import Network, Numerics
from gateway.engines import Program

import openvino as ov  # isort: skip

try:
    import nncf
except ImportError as error:
    raise NotSupported(
        "lowering to 'openvino' needs NNCF: pip install 'gearshift[compress]'"
    ) from error

_OPTIONS = frozenset({"preset", "fast_bias_correction", "model_type"})


class _Lowering:
    def version(self) -> dict[str, str]:
        return {"openvino": str(ov.__version__), "nncf": str(nncf.__version__)}

    def format(self, network: Network, folder: Path | None = None) -> str:  # noqa: ARG002 - one
        return engine.FORMAT

    def lower(self, network: Network, interface: Interface, folder: Path) -> Program:
        precision = network.numerics.precision
        if precision == "bf16" and "BF16" not in _capabilities():
            raise NotSupported("this CPU has no bf16 arithmetic (AVX512-BF16 or AMX)")
        model = _convert(network, interface)
        if precision == "int8":
            model = _quantize(model, network.numerics, interface)
        # Weights as they are: the default would halve them to fp16, and fp32 would not be fp32.
        ov.save_model(model, folder / engine.MODEL_FILE, compress_to_fp16=False)
        card = draft_card("openvino", engine.FORMAT, precision, interface.inputs, interface.outputs)
        try:
            return engine.compile_model(model, card, threads=1)
        except RuntimeError as error:
            raise BuildError(f"OpenVINO cannot compile the network: {first_line(error)}") from error


LOWERING = _Lowering()


def _capabilities() -> list[str]:
    return list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _convert(network: Network, interface: Interface) -> Any:
    exported = export(network.module, interface)
    try:
        with quiet():
            model = ov.convert_model(exported)
    except Exception as error:
        raise BuildError(f"OpenVINO cannot convert the network: {first_line(error)}") from error
    if len(model.inputs) != len(interface.inputs) or len(model.outputs) != len(interface.outputs):
        raise BuildError(
            f"the converted network has {len(model.inputs)} inputs and {len(model.outputs)} "
            f"outputs, expected {len(interface.inputs)} and {len(interface.outputs)}: "
            "an input is unused, or an output is an input or a constant"
        )
    # The converter frees every dimension and names tensors after torch's nodes.
    model.reshape(
        {
            port: ov.PartialShape(list(spec.shape))
            for port, spec in zip(model.inputs, interface.inputs, strict=True)
        }
    )
    for ports, specs in ((model.inputs, interface.inputs), (model.outputs, interface.outputs)):
        for port, spec in zip(ports, specs, strict=True):
            port.get_tensor().set_names({spec.name})
    return model


def _quantize(model: Any, numerics: Numerics, interface: Interface) -> Any:
    samples = numerics.calibration
    if samples is None:
        raise BuildError("int8 needs calibration samples and the technique gave none")
    options = dict(numerics.options)
    if unknown := set(options) - _OPTIONS:
        raise RecipeError(
            f"the openvino engine does not know the int8 options {', '.join(sorted(unknown))}; "
            f"it knows {', '.join(sorted(_OPTIONS))}"
        )
    if "preset" in options:
        options["preset"] = nncf.QuantizationPreset(options["preset"])
    if options.get("model_type") is not None:
        options["model_type"] = nncf.ModelType(options["model_type"])
    # One sample at a time: NNCF's statistics are kept per call, so a batch counts as one sample.
    names = [spec.name for spec in interface.inputs]
    rows = [
        {name: np.ascontiguousarray(samples.inputs[name][i : i + 1]) for name in names}
        for i in range(len(samples))
    ]
    try:
        with quiet(), _no_progress_bars():
            return nncf.quantize(
                model,
                nncf.Dataset(rows),
                subset_size=len(rows),
                target_device=nncf.TargetDevice.CPU,
                **options,
            )
    except Exception as error:
        raise BuildError(f"NNCF cannot quantise the network: {first_line(error)}") from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    # NNCF draws its own on rich's global console; the build draws on another, and two live
    # displays would overwrite each other.
    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
