"""OpenVINO models made narrower by NNCF: int8 by calibration, int8 at run time, narrow weights.

What is here was measured with openvino 2026.4 and nncf 3.4 on an AVX512-VNNI core without AMX:

- weights of 8 bits alone save memory and no time: they are widened before they are multiplied
  (MiniLM, 64 tokens: 1.0 times float's speed at batch 1, 0.8 times at 32);
- with a group size for dynamic quantisation the same file runs VNNI kernels, as oneDNN's own log
  says, in linear layers at least one group wide and in no convolution. Groups of 128 were the
  fastest (2.4 times float's speed at batch 1), groups of 32 lose less (2.0 times);
- that size is part of the file ("runtime_options"), so that whoever loads it runs what was
  measured; the engine's own default would quantise activations nobody asked to be quantised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import rich

import gateway.engines.openvino as engine  # first: it keeps NNCF from reporting home
from compressors.errors import BuildError, NotSupported, RecipeError
from compressors.export import first_line, quiet
from compressors.interface import Interface
from compressors.task import Samples
from compressors.technique import Numerics

import nncf  # isort: skip

_STATIC = frozenset(
    {"preset", "fast_bias_correction", "model_type", "smooth_quant_alpha", "calibration_batch"}
)
_RUNTIME = frozenset({"group_size"})
_INT8_WEIGHTS = frozenset({"symmetric"})
_INT4_WEIGHTS = frozenset({"symmetric", "group_size", "ratio", "awq", "scale_estimation"})

# What the dynamically quantised kernels take: the fastest group first, the smallest last.
_GROUPS = (128, 64, 32, 16)
_STORED = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_STORED |= {"i4": "int4", "u4": "int4"}


def static(model: Any, numerics: Numerics, interface: Interface, ignored: Sequence[str]) -> Any:
    """Weights and activations in 8 bits, with the ranges seen on `numerics.calibration`; the
    operations named in `ignored` stay in float.

    Raises:
        RecipeError: an option is unknown here.
        BuildError: no samples to calibrate on, or NNCF fails.
    """
    if numerics.calibration is None:
        raise BuildError("int8 needs calibration samples and the technique gave none")
    options = _known(numerics, _STATIC, "int8")
    batch = options.get("calibration_batch", 1)
    alpha = options.get("smooth_quant_alpha")
    advanced = nncf.AdvancedQuantizationParameters(
        # NNCF keeps statistics per call: without this a batch would count as one sample.
        batchwise_statistics=batch > 1,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(
            **({} if alpha is None else {"matmul": alpha})
        ),
    )
    preset = options.get("preset")
    kind = options.get("model_type", "transformer" if _has_attention(model) else "plain")
    data = _dataset(numerics.calibration, interface, batch)
    return _run(
        lambda: nncf.quantize(
            model,
            data,
            preset=None if preset is None else nncf.QuantizationPreset(preset),
            subset_size=len(list(data.get_inference_data())),
            target_device=nncf.TargetDevice.CPU,
            fast_bias_correction=options.get("fast_bias_correction", True),
            model_type=nncf.ModelType.TRANSFORMER if kind == "transformer" else None,
            ignored_scope=_scope(ignored),
            advanced_parameters=advanced,
        )
    )


def runtime(model: Any, numerics: Numerics, ignored: Sequence[str]) -> Any:
    """8-bit weights, and activations quantised in each run, group by group.

    Raises:
        RecipeError: an option is unknown here.
        NotSupported: no linear layer is wide enough.
        BuildError: NNCF fails.
    """
    options = _known(numerics, _RUNTIME, "int8-dynamic")
    mode = nncf.CompressWeightsMode.INT8_SYM
    widths = _linear_widths(model, ignored)
    small = _run(lambda: nncf.compress_weights(model, mode=mode, ignored_scope=_scope(ignored)))
    room = [size for size in _GROUPS if widths and size <= min(widths)]
    group = options.get("group_size") or (room or _GROUPS)[0 if room else -1]
    wide = sum(width >= group for width in widths)
    others = len(widths) - wide + _convolutions(model)
    if wide <= others:
        raise NotSupported(
            f"the openvino engine quantises activations at run time in linear layers of at least "
            f"{group} inputs (group_size), in no convolution: {wide} layers here, {others} others"
        )
    return grouped(small, group)


def weights_only(
    model: Any, numerics: Numerics, interface: Interface, ignored: Sequence[str]
) -> Any:
    """Weights in 8 or 4 bits, widened before they are multiplied: arithmetic stays in float.

    Raises:
        RecipeError: an option is unknown here.
        BuildError: NNCF fails, or an option needs samples and there are none.
    """
    four = numerics.weights == "int4"
    known = _INT4_WEIGHTS if four else _INT8_WEIGHTS
    options = _known(numerics, known, f"{numerics.weights}-weights")
    kind = "SYM" if options.pop("symmetric", True) else "ASYM"
    mode = nncf.CompressWeightsMode[f"{'INT4' if four else 'INT8'}_{kind}"]
    if not four:
        return grouped(
            _run(lambda: nncf.compress_weights(model, mode=mode, ignored_scope=_scope(ignored))), 0
        )
    data = None
    if numerics.calibration is not None:
        data = _dataset(numerics.calibration, interface, 1)
        options["subset_size"] = len(numerics.calibration)
    elif options.get("awq") or options.get("scale_estimation"):
        raise BuildError("awq and scale_estimation need calibration samples; there are none")
    # Layers whose rows are no multiple of the group size get a smaller one; below 16 they are
    # stored in 8 bits.
    fallback = nncf.AdvancedCompressionParameters(
        group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=16
    )
    small = _run(
        lambda: nncf.compress_weights(
            model,
            mode=mode,
            dataset=data,
            ignored_scope=_scope(ignored),
            advanced_parameters=fallback,
            **options,
        )
    )
    held = stored(small)
    if held.get("int4", 0) <= held.get("fp32", 0):
        raise NotSupported(
            "the openvino engine stores 4-bit weights in linear layers, the last one and "
            f"embeddings excepted: {held.get('int4', 0)} of {sum(held.values())} numbers here"
        )
    return grouped(small, 0)


def grouped(model: Any, size: int) -> Any:
    """`model` with the group size for dynamic quantisation written into it; 0: none."""
    model.set_rt_info(str(size), ["runtime_options", engine.GROUP_SIZE])
    return model


def stored(model: Any) -> dict[str, int]:
    """How many numbers the file holds at each width, integers that are no weights (shapes, axes)
    left out."""
    found: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_element_type().get_type_name()
            if kind in _STORED:
                found[_STORED[kind]] += int(np.prod(list(node.shape), dtype=np.int64))
    return dict(found)


def _known(numerics: Numerics, known: frozenset[str], what: str) -> dict[str, Any]:
    if unknown := set(numerics.options) - known:
        raise RecipeError(
            f"the openvino engine does not know the {what} options {', '.join(sorted(unknown))}; "
            f"it knows {', '.join(sorted(known))}"
        )
    return dict(numerics.options)


def _scope(names: Sequence[str]) -> Any:
    return nncf.IgnoredScope(names=list(names)) if names else None


def _dataset(samples: Samples, interface: Interface, batch: int) -> Any:
    names = [spec.name for spec in interface.inputs]
    return nncf.Dataset(
        [
            {name: np.ascontiguousarray(samples.inputs[name][i : i + batch]) for name in names}
            for i in range(0, len(samples), batch)
        ]
    )


def _has_attention(model: Any) -> bool:
    """A product of matrices neither of which is a weight, after a softmax or fused with it."""
    for node in model.get_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            return True
        if node.get_type_name() == "MatMul":
            sources = [
                port.get_source_output().get_node().get_type_name() for port in node.inputs()
            ]
            if "Softmax" in sources:
                return True
    return False


def _convolutions(model: Any) -> int:
    return sum("Convolution" in node.get_type_name() for node in model.get_ops())


def _linear_widths(model: Any, ignored: Sequence[str]) -> list[int]:
    """Inputs of each linear layer: of each product with a constant."""
    found = []
    for node in model.get_ops():
        if node.get_type_name() != "MatMul" or node.get_friendly_name() in ignored:
            continue
        weight = node.input_value(1).get_node()
        if weight.get_type_name() == "Constant" and len(weight.shape) == 2:
            found.append(int(weight.shape[1 if node.get_attributes()["transpose_b"] else 0]))
    return found


def _run(quantise: Callable[[], Any]) -> Any:
    try:
        with quiet(), _no_progress_bars():
            return quantise()
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
