"""What is free in the task must be free in each engine's program, whatever a converter makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressors import lowering
from compressors.errors import BuildError, ExportMismatch
from compressors.interface import Interface, describe, run
from compressors.lowered import Checked, lower
from compressors.progress import Silent
from compressors.task import Samples, Split, Task
from compressors.technique import Network
from gateway.engines import Program

LENGTH = 6


class Mean(nn.Module):
    """Token ids (n, length) to logits (n, 4): a mean over `length`, or a sum times a constant."""

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 4)
        self.length = length
        self.register_buffer("share", torch.tensor([1 / (length or 1)]), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        words = self.embedding(ids)
        pooled = words.sum(1) * self.share if self.length else words.mean(1)
        return self.head(pooled)  # type: ignore[no-any-return]


class Words(Task):
    name = "words"
    free_dimensions = {"ids": (1,)}  # noqa: RUF012

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return Mean().eval()

    def samples(self, split: Split) -> Samples:  # noqa: ARG002
        rng = np.random.default_rng(0)
        return Samples({"ids": rng.integers(0, 20, (16, LENGTH))}, rng.integers(0, 4, 16))


class FixesTheLength:
    """OpenVINO's lowering, but for a converter that keeps the samples' sizes: its program raises
    on others."""

    def __init__(self) -> None:
        self._real = lowering.get("openvino")

    def version(self) -> dict[str, str]:
        return self._real.version()

    def format(self, network: Network, folder: Path | None = None) -> str:
        return self._real.format(network, folder)

    def lower(self, network: Network, interface: Interface, folder: Path) -> Program:
        fixed = tuple(replaced(spec.shape) for spec in interface.inputs)
        inputs = tuple(
            spec.model_copy(update={"shape": shape})
            for spec, shape in zip(interface.inputs, fixed, strict=True)
        )
        return self._real.lower(network, replace(interface, inputs=inputs), folder)


class ComputesTheLength(FixesTheLength):
    """The same for a converter that folds the length into a constant: its program runs on, and
    says something else."""

    def lower(self, network: Network, interface: Interface, folder: Path) -> Program:
        # Kept: OpenVINO's program in memory shares the module's tensors.
        self._other = Mean(LENGTH).eval()
        self._other.load_state_dict(network.module.state_dict())
        return self._real.lower(Network(self._other), interface, folder)


def replaced(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(LENGTH if index and size == -1 else size for index, size in enumerate(shape))


def lowered(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Which engines a mean over words is lowered to, and why not to the others."""
    task = Words()
    network, inputs = task.network(), task.samples("validation").inputs
    interface = describe(task, network, task.samples("validation"))
    folders = {name: folder / name for name in ("openvino", "onnxruntime")}
    for each in folders.values():
        each.mkdir()
    checked = Checked(inputs, run(network, dict(inputs), task.outputs))
    passed, refused = lower(
        list(folders), Network(network), interface, checked, folders, Silent().stage("")
    )
    return [each.engine for each in passed], refused


def test_a_length_that_is_free_everywhere_passes(tmp_path: Path) -> None:
    assert lowered(tmp_path) == (["openvino", "onnxruntime"], {})


@pytest.mark.parametrize(
    ("converter", "told"),
    [
        (FixesTheLength, f"{BuildError.__name__}: the program does not run with ids (4, 3): "),
        (ComputesTheLength, f"{ExportMismatch.__name__}: with ids (4, 3): output 'logits': "),
    ],
)
def test_an_engine_whose_converter_fixed_the_length_is_out_by_name(
    converter: type[FixesTheLength], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, faulty = lowering.get, converter()
    monkeypatch.setattr(lowering, "get", lambda name: faulty if name == "openvino" else real(name))
    passed, refused = lowered(tmp_path)
    assert passed == ["onnxruntime"]
    assert list(refused) == ["openvino"]
    assert refused["openvino"].startswith(told)
