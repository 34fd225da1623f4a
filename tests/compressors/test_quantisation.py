"""Quantising techniques through to OpenVINO programs: the kernels that ran, the bytes, the outputs,
and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressors import lowering, technique, verify
from compressors.draft import draft_card
from compressors.errors import BuildError, NotApplicable, NotSupported, RecipeError, WrongWeights
from compressors.interface import Interface, describe, run
from compressors.quantising.fake_quantise import Quantised
from compressors.technique import Network, Numerics
from gateway import engines
from gateway.engines import Program
from tests.compressors.few import Few, context_of
from tests.perceptron_task import Perceptron
from tests.tiny_task import Tiny


def made(name: str, task: Tiny, **settings: Any) -> Network:
    found = technique.get(name)
    config = found.Config.model_validate(settings)
    network = found.apply(Network(task.network()), context_of(task), config)
    network.module.eval()
    return network


def lowered(network: Network, task: Tiny, folder: Path) -> tuple[Program, int]:
    """The program as read back, once it has passed the build's checks, and its bytes."""
    folder.mkdir()
    samples = task.samples("validation")
    interface: Interface = describe(task, task.network(), samples)
    memory = lowering.get("openvino").lower(network, interface, folder)
    precision, weights = network.numerics.precision, network.numerics.weights
    card = draft_card("openvino", "openvino-ir", precision, interface.inputs, interface.outputs)
    program = engines.get("openvino").load(folder, card, threads=1, trusted=True)
    own = run(network.module, samples.inputs, task.outputs)
    got = program.infer(samples.inputs)
    verify.export_matches(own, got, precision, weights)
    verify.reload_matches(memory.infer(samples.inputs), got)
    verify.right_kernels(program.kernels(), precision)
    return program, sum(path.stat().st_size for path in folder.iterdir())


def score(program: Program, task: Tiny) -> float:
    samples = task.samples("validation")
    return float(task.score(program.infer(samples.inputs), samples.targets).mean())


@pytest.mark.parametrize(
    ("name", "settings", "kernels", "share"),
    [
        ("fp16", {}, {"fp32": 3}, 0.7),
        ("int8", {"calibration_samples": 64, "calibration_batch": 16}, {"int8": 3}, 0.75),
        ("int8-dynamic", {}, {"int8": 3}, 0.6),
        ("int8-weights", {}, {"fp32": 3}, 0.6),
        ("int4-weights", {"group_size": 32}, {"fp32": 3}, 0.55),
        ("qat", {"epochs": 1, "calibration_samples": 64}, {"int8": 3}, 0.75),
    ],
)
def test_linear_layers(
    name: str, settings: dict[str, Any], kernels: dict[str, int], share: float, tmp_path: Path
) -> None:
    task = Perceptron()
    if name == "fp16" and torch.ops.mkldnn._is_mkldnn_fp16_supported():
        kernels = {"fp16": 3}
    plain, whole = lowered(Network(task.network()), task, tmp_path / "plain")
    program, small = lowered(made(name, task, **settings), task, tmp_path / "small")
    assert program.kernels() == kernels
    assert small < share * whole
    assert score(program, task) > score(plain, task) - 0.03


def test_convolutions_trained_with_rounding_run_in_integers(tmp_path: Path) -> None:
    task = Few()
    network = made("qat", task, epochs=1, calibration_samples=64)
    assert sum(isinstance(part, Quantised) for part in network.module.modules()) == 4
    assert all(torch.isfinite(p).all() for p in network.module.parameters())
    assert not torch.equal(network.module[0].weight, task.network()[0].weight)
    program, _ = lowered(network, task, tmp_path / "qat")
    assert program.kernels() == {"int8": 4}
    after, _ = lowered(made("int8", task, calibration_samples=64), task, tmp_path / "int8")
    assert score(program, task) >= score(after, task)


@pytest.mark.parametrize("layer", ["0", "3", "10"])
def test_a_layer_that_is_to_stay_in_float_does(layer: str, tmp_path: Path) -> None:
    task = Few()
    network = made("int8", task, calibration_samples=32)
    numerics = network.numerics
    mixed = Network(
        network.module, Numerics("int8", calibration=numerics.calibration, floats=(layer,))
    )
    program, _ = lowered(mixed, task, tmp_path / "mixed")
    assert program.kernels() == {"int8": 3, "fp32": 1}
    ops: Any = program
    order = [
        node.get_rt_info()["primitiveType"].astype(str).lower().endswith("f32")
        for node in ops._compiled.get_runtime_model().get_ordered_ops()
        if node.get_rt_info()["layerType"].astype(str) in ("Convolution", "FullyConnected")
    ]
    assert order.index(True) == ["0", "3", "6", "10"].index(layer)


def test_mixed_keeps_the_layer_that_hurts() -> None:
    class Outliers(Few):
        def network(self) -> nn.Module:
            # The same function, but one input of layer 6 is a thousand times the others'.
            network = super().network()
            with torch.no_grad():
                channel = network[4].weight.argmax()
                network[4].weight[channel] *= 1000
                network[4].bias[channel] *= 1000
                network[6].weight[:, channel] /= 1000
            return network

    numerics = made("int8-mixed", Outliers(), keep=1).numerics
    assert numerics.floats == ("6",) and numerics.calibration is not None
    assert "6" in made("int8-mixed", Outliers(), max_drop=0.01).numerics.floats
    assert made("int8-mixed", Few(), max_drop=0.05).numerics.floats == ()
    with pytest.raises(NotApplicable, match=r"int8-mixed: keep = 2 .* 4 layers"):
        made("int8-mixed", Few(), keep=2)


def test_smooth_quant_moves_what_is_computed(tmp_path: Path) -> None:
    task = Perceptron()
    settings = {"calibration_samples": 32, "model_type": "transformer"}
    x = task.samples("validation").inputs
    outputs = []
    for index, alpha in enumerate((0.1, 0.9)):
        network = made("int8", task, **settings, smooth_quant_alpha=alpha)
        outputs.append(lowered(network, task, tmp_path / str(index))[0].infer(x)["logits"])
    assert not np.allclose(*outputs, atol=1e-3)
    with pytest.raises(ValidationError, match="smooth_quant_alpha"):
        technique.get("int8").Config.model_validate(
            {"model_type": "plain", "smooth_quant_alpha": 0.5}
        )


@pytest.mark.parametrize(
    ("numerics", "error", "told"),
    [
        (Numerics("bf16", weights="int8"), NotSupported, "no int8 weights with bf16"),
        (Numerics("int8", weights="int4"), NotSupported, "no int4 weights with int8"),
        (Numerics(ranges="runtime"), NotSupported, "'runtime' are int8's"),
        (Numerics(floats=("0",)), NotSupported, "single layers in float"),
        (Numerics(options={"odd": 1}), RecipeError, "odd"),
        (Numerics("int8", ranges="runtime", options={"odd": 1}), RecipeError, "odd"),
        (Numerics(weights="int8", options={"odd": 1}), RecipeError, "odd"),
        (Numerics("int8", ranges="runtime"), NotSupported, "1 layers here, 3 others"),
        (Numerics(weights="int4"), NotSupported, "4-bit weights"),
        (Numerics(weights="int8", floats=("9",)), BuildError, "layer '9'"),
    ],
)
def test_what_cannot_run_is_refused_by_name(
    numerics: Numerics, error: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=told):
        lowered(Network(Few().network(), numerics), Few(), tmp_path / "none")


def test_a_number_out_of_fp16_s_range_is_refused() -> None:
    task = Few()
    network = task.network()
    with torch.no_grad():
        network[10].weight[0, 0] = 1e5
    found = technique.get("fp16")
    with pytest.raises(NotApplicable, match=r"fp16: 10.weight holds 100000"):
        found.apply(Network(network), context_of(task), found.Config())


@pytest.mark.parametrize(
    ("stored", "weights", "passes"),
    [
        ({"fp16": 90, "fp32": 10}, "fp16", True),
        ({"fp32": 90, "fp16": 10}, "fp16", False),
        ({"int8": 90, "fp32": 10}, "int8", True),
        ({"fp16": 90, "int8": 10}, "int8", False),
        ({"int4": 40, "int8": 50, "fp32": 10}, "int4", True),
        ({"int8": 90, "fp32": 10}, "int4", False),
        ({"fp32": 90}, None, True),
    ],
)
def test_stored_weights(stored: dict[str, int], weights: Any, passes: bool) -> None:
    if passes:
        verify.right_weights(stored, weights)
    else:
        with pytest.raises(WrongWeights, match=f"claims {weights} weights"):
            verify.right_weights(stored, weights)
