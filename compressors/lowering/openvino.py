"""OpenVINO IR: torch.export, then `openvino.convert_model`, then NNCF for what is narrower.

bf16 is no other file: the same weights run with the engine's precision hint, which the card's
precision sets. int8 is in the file: by post-training static quantisation of the OpenVINO graph, as
quantise operations that the network was trained with, or as 8-bit weights with a group size for
activations that are quantised in each run. No compiler is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gateway.engines.openvino as engine  # first: it keeps OpenVINO and NNCF from reporting home
from compressors import verify
from compressors.draft import draft_card
from compressors.errors import BuildError, NotSupported, RecipeError
from compressors.export import export, first_line, quiet
from compressors.interface import Interface
from compressors.quantising import openvino_layers as layers
from compressors.technique import Network, Numerics
from gateway.engines import Program
from router.card import Precision, StoredWeights

import openvino as ov  # isort: skip
from openvino._offline_transformations import compress_model_transformation  # isort: skip

try:
    import nncf

    from compressors.quantising import openvino_quantise as quantise
except ImportError as error:
    raise NotSupported(
        "lowering to 'openvino' needs NNCF: pip install 'gearshift[compress]'"
    ) from error

# Arithmetic, and the narrower weights that go with it. int8 brings its own.
_PAIRS: dict[Precision, tuple[StoredWeights | None, ...]] = {
    "fp32": (None, "fp16", "int8", "int4"),
    "bf16": (None,),
    "fp16": (None, "fp16"),
    "int8": (None,),
}
_HARDWARE = {"bf16": "AVX512-BF16 or AMX", "fp16": "AVX512-FP16 or AMX-FP16"}


class _Lowering:
    def version(self) -> dict[str, str]:
        return {"openvino": str(ov.__version__), "nncf": str(nncf.__version__)}

    def format(self, network: Network, folder: Path | None = None) -> str:  # noqa: ARG002 - one
        return engine.FORMAT

    def lower(self, network: Network, interface: Interface, folder: Path) -> Program:
        numerics = network.numerics
        _supported(numerics)
        model, floats = _convert(network, interface)
        if numerics.precision == "int8" and numerics.ranges == "calibration":
            model = quantise.static(model, numerics, interface, floats)
        elif numerics.precision == "int8" and numerics.ranges == "runtime":
            model = quantise.runtime(model, numerics, floats)
        elif numerics.weights == "fp16":
            compress_model_transformation(model)
        elif numerics.weights is not None:
            model = quantise.weights_only(model, numerics, interface, floats)
        # Weights as they are now: the default would halve them to fp16.
        ov.save_model(model, folder / engine.MODEL_FILE, compress_to_fp16=False)
        written = ov.Core().read_model(folder / engine.MODEL_FILE)
        verify.right_weights(quantise.stored(written), numerics.weights)
        card = draft_card(
            "openvino", engine.FORMAT, numerics.precision, interface.inputs, interface.outputs
        )
        try:
            return engine.compile_model(model, card, threads=1)
        except RuntimeError as error:
            raise BuildError(f"OpenVINO cannot compile the network: {first_line(error)}") from error


LOWERING = _Lowering()


def _supported(numerics: Numerics) -> None:
    """Raises NotSupported, by name, for what this engine or this machine cannot run."""
    precision, weights = numerics.precision, numerics.weights
    if weights not in _PAIRS[precision]:
        raise NotSupported(
            f"the openvino engine is given no {weights} weights with {precision} arithmetic here"
        )
    hardware = _HARDWARE.get(precision)
    if hardware and precision.upper() not in _capabilities():
        raise NotSupported(f"this CPU has no {precision} arithmetic ({hardware})")
    if numerics.ranges != "calibration" and precision != "int8":
        raise NotSupported(
            f"ranges by {numerics.ranges!r} are int8's, the precision is {precision}"
        )
    trained = numerics.ranges == "trained"
    if numerics.floats and (trained or (precision != "int8" and weights in (None, "fp16"))):
        raise NotSupported(
            f"the openvino engine keeps single layers in float where it quantises by itself, not "
            f"with {'trained ranges' if trained else precision}"
        )
    # Where NNCF runs it refuses the options that it does not know.
    if numerics.options and (trained or (precision != "int8" and weights in (None, "fp16"))):
        raise RecipeError(
            f"the openvino engine knows no options for {'trained ranges' if trained else precision}"
            f", got {', '.join(sorted(numerics.options))}"
        )


def _capabilities() -> list[str]:
    return list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _convert(network: Network, interface: Interface) -> tuple[Any, list[str]]:
    """The converted network, and the names of its operations that stay in float."""
    exported = export(network.module, interface)
    try:
        with quiet():
            decoded = layers.decoder(exported) if network.numerics.floats else exported
            model = ov.convert_model(decoded)
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
    floats = network.numerics.floats
    return model, layers.operations_of(model, decoded, floats) if floats else []
