"""Lowering: names, free batch, precisions, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressors import lowering, usertask, verify
from compressors.draft import draft_card
from compressors.errors import BuildError, NotSupported, RecipeError
from compressors.interface import Interface, describe, run
from compressors.task import Samples
from compressors.technique import Network, Numerics
from gateway import engines
from tests.compressors.builds import TASK

has_bf16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@pytest.fixture(scope="module")
def task() -> usertask.Guarded:
    return usertask.load(TASK)


@pytest.fixture(scope="module")
def interface(task: usertask.Guarded) -> Interface:
    return describe(task, task.network(), task.samples("validation"))


def load(name: str, network: Network, interface: Interface, folder: Path) -> engines.Program:
    target = lowering.get(name)
    target.lower(network, interface, folder)
    card = draft_card(
        name,
        target.format(network),
        network.numerics.precision,
        interface.inputs,
        interface.outputs,
    )
    return engines.get(name).load(folder, card, threads=1, trusted=True)


@pytest.mark.parametrize("name", lowering.names())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_programs_compute_what_the_network_computes(
    name: str,
    precision: str,
    task: usertask.Guarded,
    interface: Interface,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-compiler-here")
    network = Network(task.network(), Numerics(precision))  # type: ignore[arg-type]
    if precision == "bf16" and (name == "onnxruntime" or not has_bf16):
        with pytest.raises(NotSupported, match="bf16"):
            load(name, network, interface, tmp_path)
        return
    program = load(name, network, interface, tmp_path)
    inputs = task.samples("test").batch(slice(0, 33)).inputs
    expected = run(network.module, inputs, task.outputs)["logits"]
    got = program.infer(inputs)["logits"]
    tolerance = 1e-4 if precision == "fp32" else 0.3
    np.testing.assert_allclose(got, expected, atol=tolerance)
    assert set(program.kernels()) == {precision}


@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_a_compiled_package(task: usertask.Guarded, interface: Interface, tmp_path: Path) -> None:
    network = Network(task.network())
    assert lowering.get("torch").format(network) == "torch-aotinductor"
    program = load("torch", network, interface, tmp_path)
    for rows in (1, 3, 32):
        inputs = task.samples("test").batch(slice(0, rows)).inputs
        expected = run(network.module, inputs, task.outputs)["logits"]
        np.testing.assert_allclose(program.infer(inputs)["logits"], expected, atol=1e-4)
    assert program.kernels() == {"fp32": 4}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_runs_int8(
    name: str, task: usertask.Guarded, interface: Interface, tmp_path: Path
) -> None:
    numerics = Numerics("int8", calibration=task.samples("train").batch(slice(0, 64)))
    network = Network(task.network(), numerics)
    program = load(name, network, interface, tmp_path)
    assert program.kernels() == {"int8": 4}
    inputs = task.samples("test").inputs
    expected = run(network.module, inputs, task.outputs)["logits"]
    assert verify.relative_error(expected, program.infer(inputs)["logits"]) < 0.3


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_needs_samples_and_known_options(
    name: str, task: usertask.Guarded, interface: Interface, tmp_path: Path
) -> None:
    target = lowering.get(name)
    with pytest.raises(BuildError, match="calibration samples"):
        target.lower(Network(task.network(), Numerics("int8")), interface, tmp_path)
    calibration = task.samples("train").batch(slice(0, 8))
    odd = Numerics("int8", calibration=calibration, options={"magic": True})
    with pytest.raises(RecipeError, match="magic"):
        target.lower(Network(task.network(), odd), interface, tmp_path)


def test_torch_refuses_int8(task: usertask.Guarded, interface: Interface, tmp_path: Path) -> None:
    numerics = Numerics("int8", calibration=task.samples("train").batch(slice(0, 8)))
    with pytest.raises(NotSupported, match="int8"):
        lowering.get("torch").lower(Network(task.network(), numerics), interface, tmp_path)


def test_onnx_int8_leaves_modules_in_float(
    task: usertask.Guarded, interface: Interface, tmp_path: Path
) -> None:
    calibration = task.samples("train").batch(slice(0, 8))
    numerics = Numerics("int8", calibration=calibration, floats=("0", "10"))
    program = load("onnxruntime", Network(task.network(), numerics), interface, tmp_path)
    assert program.kernels() == {"int8": 2, "fp32": 2}
    missing = Numerics("int8", calibration=calibration, floats=("head",))
    with pytest.raises(BuildError, match="head shall stay in float"):
        load("onnxruntime", Network(task.network(), missing), interface, tmp_path)


def test_onnx_int8_with_ranges_of_each_run(
    task: usertask.Guarded, interface: Interface, tmp_path: Path
) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    network = Network(module, Numerics("int8", ranges="runtime"))
    program = load("onnxruntime", network, interface, tmp_path)
    assert program.kernels() == {"int8": 2}
    inputs = task.samples("test").inputs
    expected = run(module, inputs, task.outputs)["logits"]
    got = program.infer(inputs)["logits"]
    assert 0 < verify.relative_error(expected, got) < 0.1


@pytest.mark.parametrize(
    ("numerics", "told"),
    [(Numerics("fp16"), "computes no fp16"), (Numerics(weights="int4"), "no int4 weights")],
)
def test_onnx_refuses_what_its_kernels_do_not_compute(
    numerics: Numerics, told: str, task: usertask.Guarded, interface: Interface, tmp_path: Path
) -> None:
    with pytest.raises(NotSupported, match=told):
        lowering.get("onnxruntime").lower(Network(task.network(), numerics), interface, tmp_path)


class _TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(5, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.one(a) + self.two(b).sum(1, keepdim=True), self.two(b)


class _TwoHeadsTask(usertask.Task):
    name = "two"
    outputs = ("sum", "part")

    def network(self) -> nn.Module:
        return _TwoHeads().eval()

    def samples(self, split: str) -> Samples:  # type: ignore[override]  # noqa: ARG002
        random = np.random.default_rng(0)
        inputs = {
            n: random.random((6, s), dtype=np.float32) for n, s in (("left", 4), ("right", 5))
        }
        return Samples(inputs, np.zeros(6, int))


@pytest.mark.parametrize("name", lowering.names())
def test_several_inputs_and_outputs_keep_the_task_s_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-compiler-here")
    task = _TwoHeadsTask()
    module, samples = task.network(), task.samples("test")
    interface = describe(task, module, samples)
    program = load(name, Network(module), interface, tmp_path)
    expected = run(module, samples.inputs, task.outputs)
    # Given in another order: names count.
    got = program.infer(dict(reversed(samples.inputs.items())))
    assert list(got) == ["sum", "part"]
    for output in task.outputs:
        np.testing.assert_allclose(got[output], expected[output], atol=1e-5)


def test_unknown_engine() -> None:
    with pytest.raises(RecipeError, match=r"unknown engine 'abacus'.*onnxruntime, openvino, torch"):
        lowering.get("abacus")


def test_every_lowering_has_its_engine() -> None:
    assert set(lowering.names()) <= set(engines.names())
