"""Free dimensions, and networks that cannot be exported, through every engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressors import lowering, usertask
from compressors.draft import draft_card
from compressors.errors import BuildError, TaskError
from compressors.interface import describe, run
from compressors.task import Samples, Task
from compressors.technique import Network
from gateway import engines
from gateway.engines import EngineError, UntrustedArtifact


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.places = nn.Embedding(50, 16), nn.Embedding(64, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        x = self.layer(x, src_key_padding_mask=mask == 0)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.head(pooled), self.head(x)


class _Text(Task):
    name = "text"
    outputs = ("label", "tokens")
    free_dimensions: Mapping[str, tuple[int, ...]] = {"ids": (1,), "mask": (1,)}

    def network(self) -> nn.Module:
        return _Encoder().eval()

    def samples(self, split: str) -> Samples:  # type: ignore[override]  # noqa: ARG002
        return Samples(_rows(6, 16), np.zeros(6, np.int64))


def _rows(count: int, length: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(length)
    mask = np.arange(length) < random.integers(1, length + 1, (count, 1))
    return {"ids": random.integers(0, 50, (count, length)), "mask": mask.astype(np.int64)}


def test_outputs_that_follow_a_free_size_are_free() -> None:
    task = _Text()
    interface = describe(task, task.network(), task.samples("test"))
    assert [spec.shape for spec in interface.inputs] == [(-1, -1), (-1, -1)]
    assert [spec.shape for spec in interface.outputs] == [(-1, 3), (-1, -1, 3)]


@pytest.mark.parametrize("name", lowering.names())
def test_any_length(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-compiler-here")
    task = _Text()
    network = task.network()
    interface = describe(task, network, task.samples("test"))
    target = lowering.get(name)
    target.lower(Network(network), interface, tmp_path)
    format_ = target.format(Network(network), tmp_path)
    card = draft_card(name, format_, "fp32", interface.inputs, interface.outputs)
    program = engines.get(name).load(tmp_path, card, threads=1, trusted=True)
    for length in (1, 3, 8, 17):
        inputs = _rows(5, length)
        expected = run(network, inputs, task.outputs)
        got = program.infer(inputs)
        for output in task.outputs:
            np.testing.assert_allclose(got[output], expected[output], atol=1e-5)


@pytest.mark.parametrize(
    ("free", "told"),
    [
        ({"words": (1,)}, "no input words"),
        ({"ids": (2,)}, "expected numbers from 1 to 1"),
        ({"ids": (0,)}, "expected numbers from 1 to 1"),
        ({"ids": (1,)}, "does not run with inputs of"),
    ],
)
def test_free_dimensions_that_are_none(free: Mapping[str, tuple[int, ...]], told: str) -> None:
    task = _Text()
    task.free_dimensions = free
    with pytest.raises(TaskError, match=told):
        describe(task, task.network(), task.samples("test"))


MOODY = """
import numpy as np
import torch
from torch import nn
from compressors.task import Samples, Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.one(x) if float(x.sum()) > 0 else self.two(x)

class Moody(Task):
    name = "moody"

    def network(self):
        return Net().eval()

    def samples(self, split):
        return Samples({"x": np.eye(4, dtype=np.float32)}, np.zeros(4, np.int64))
"""


@pytest.fixture
def moody(tmp_path: Path) -> usertask.Guarded:
    (tmp_path / "moody.py").write_text(MOODY)
    return usertask.load(str(tmp_path / "moody.py"))


def test_weights_for_the_task_s_own_network(moody: usertask.Guarded, tmp_path: Path) -> None:
    network = moody.network()
    with torch.no_grad():
        network.two.weight.mul_(2)  # as a technique would; the task's own network differs
    interface = describe(moody, network, moody.samples("test"))
    out = tmp_path / "out"
    out.mkdir()
    target = lowering.get("torch")
    memory = target.lower(Network(network), interface, out)
    assert [path.name for path in out.iterdir()] == ["weights.safetensors"]
    assert target.format(Network(network), out) == "task"
    card = draft_card(
        "torch",
        "task",
        "fp32",
        interface.inputs,
        interface.outputs,
        interface.constructor,
        interface.constructor_digest,
    )
    assert card.engine.constructor == f"{tmp_path / 'moody.py'}:Moody"
    engine = engines.get("torch")
    with pytest.raises(UntrustedArtifact, match="code of its task"):
        engine.load(out, card, threads=1, trusted=False)
    program = engine.load(out, card, threads=1, trusted=True)
    for sign in (1, -1):
        inputs = {"x": sign * interface.example["x"]}
        expected = run(network, inputs, moody.outputs)["logits"]
        np.testing.assert_array_equal(program.infer(inputs)["logits"], expected)
        np.testing.assert_array_equal(memory.infer(inputs)["logits"], expected)
    assert program.kernels() == {"fp32": 1}

    source = (tmp_path / "moody.py").read_text()
    old = card.model_copy(
        update={"engine": card.engine.model_copy(update={"constructor_digest": None})}
    )
    # The same names and shapes, and another function.
    (tmp_path / "moody.py").write_text(source.replace("self.two(x)", "self.two(x).relu()"))
    with pytest.raises(EngineError, match=r"other code than .*/moody\.py holds now.* --replace"):
        engine.load(out, card, threads=1, trusted=True)
    engine.load(out, old, threads=1, trusted=True)
    (tmp_path / "moody.py").write_text(source)
    engine.load(out, card, threads=1, trusted=True)
    (tmp_path / "moody.py").write_text(source.replace("nn.Linear(4, 3), nn", "nn.Linear(4, 5), nn"))
    with pytest.raises(EngineError, match=r"one\.weight is torch\.float32 \(3, 4\), the network's"):
        engine.load(out, old, threads=1, trusted=True)
    (tmp_path / "moody.py").unlink()
    with pytest.raises(EngineError, match="no such file"):
        engine.load(out, card, threads=1, trusted=True)


def test_a_changed_structure_cannot_be_kept_as_weights(
    moody: usertask.Guarded, tmp_path: Path
) -> None:
    network = moody.network()
    network.one = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3))
    interface = describe(moody, network, moody.samples("test"))
    told = r"torch.export cannot trace Net.*a step changed the structure: one\.weight"
    with pytest.raises(BuildError, match=told):
        lowering.get("torch").lower(Network(network.eval()), interface, tmp_path)
