"""`gearshift export`: files out of the store, checked, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer import Typer
from typer.testing import CliRunner, Result

from compressors import lowering
from compressors.commands.export import export
from compressors.interface import describe
from compressors.sample import write_sample
from compressors.technique import Network
from router.card import CARD_FILE, VariantCard
from router.manifest import MANIFEST_FILE
from tests.stores import seal, write_variant
from tests.tiny_task import Tiny

app = Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(export)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variant that OpenVINO serves and that keeps ONNX and an exported program beside it."""
    task = Tiny()
    network = task.network()
    interface = describe(task, network, task.samples("validation"))
    figures = {"accuracy": 0.97, "latency_ms_at_1": 1.0, "latency_ms_at_32": 4.0}
    ports = {"inputs": interface.inputs, "outputs": interface.outputs}
    folder = write_variant(tmp_path_factory.mktemp("models"), "tiny", "fp32", **figures, **ports)
    (folder / "echo.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "no-compiler-here")
        for name in ("onnxruntime", "openvino", "torch"):
            lowering.get(name).lower(Network(network), interface, folder)
    card = json.loads((folder / CARD_FILE).read_bytes())
    serves = {"name": "openvino", "version": "1", "format": "openvino-ir", "kernels": {"fp32": 4}}
    trial = {**serves, "name": "torch", "format": "torch-export", "validation": 0.97}
    trial |= {"latency": card["latency"], "bytes_on_disk": 1}
    card |= {"engine": serves, "engines": [trial]}
    text = VariantCard.model_validate_json(json.dumps(card)).model_dump_json()
    (folder / CARD_FILE).write_text(text)
    seal(folder)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store" / "tiny" / "fp32"))


@pytest.mark.parametrize(
    ("to", "files", "code"),
    [
        ("onnx", ["model.onnx"], False),
        ("openvino", ["model.xml", "model.bin"], False),
        ("pt2", ["model.pt2"], True),
    ],
)
def test_each_format(to: str, files: list[str], code: bool, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "edge" / "out"
    done = run(store, "--to", to, "--out", out, "--trusted")
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {*files, "export.json", "README.md"}
    for name in files:
        assert (out / name).read_bytes() == (store / name).read_bytes()
    about = json.loads((out / "export.json").read_bytes())
    assert about["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert about["accuracy"]["value"] == 0.97
    assert about["checked_with"] == "zeros"
    assert about["carries_code"] is code
    assert ("code" in (out / "README.md").read_text()) is code


def test_what_can_carry_code_needs_trust(store: Path, tmp_path: Path) -> None:
    done = run(store, "--to", "pt2", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "trusted" in done.output
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_overwritten_unasked(store: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    done = run(store, "--to", "onnx", "--out", tmp_path)
    assert done.exit_code == 2
    assert "already holds model.onnx; --force" in done.output
    assert (tmp_path / "model.onnx").read_text() == "mine"
    assert run(store, "--to", "onnx", "--out", tmp_path, "--force").exit_code == 0
    assert (tmp_path / "model.onnx").read_bytes() == (store / "model.onnx").read_bytes()


def test_a_format_that_is_not_there(store: Path, tmp_path: Path) -> None:
    (store / "model.onnx").unlink()
    seal(store)
    done = run(store, "--to", "onnx", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "holds no model.onnx; it holds openvino, pt2" in done.output
    assert "--engine openvino,onnxruntime" in done.output
    assert not (tmp_path / "out").exists()


def test_a_damaged_store_is_not_exported(store: Path, tmp_path: Path) -> None:
    (store / "model.onnx").write_bytes((store / "model.onnx").read_bytes() + b"x")
    done = run(store, "--to", "onnx", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "model.onnx has digest" in done.output
    assert not (tmp_path / "out").exists()


def test_a_file_that_computes_otherwise_is_not_exported(store: Path, tmp_path: Path) -> None:
    task = Tiny()
    network = task.network()
    interface = describe(task, network, task.samples("validation"))
    for parameter in network.parameters():
        parameter.data.mul_(1.5)
    lowering.get("onnxruntime").lower(Network(network), interface, store)
    seal(store)
    sample = task.samples("test").inputs["image"][:1]
    data = np.asarray(sample, np.float64).ravel().tolist()
    body = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": data}
    (store.parent / "sample.json").write_text(json.dumps({"inputs": [body]}))
    done = run(store, "--to", "onnx", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "relative error" in done.output
    assert list((tmp_path / "out").iterdir()) == []


class Share(nn.Module):
    """An image over its sum: zeros give no number."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1) / image.sum((1, 2, 3))[:, None]


def write_share(store: Path, engine: str, module: nn.Module) -> None:
    task = Tiny()
    interface = describe(task, module.eval(), task.samples("validation"))
    lowering.get(engine).lower(Network(module), interface, store)
    card = json.loads((store / CARD_FILE).read_bytes())
    card["outputs"] = [spec.model_dump(mode="json") for spec in interface.outputs]
    text = VariantCard.model_validate_json(json.dumps(card)).model_dump_json()
    (store / CARD_FILE).write_text(text)
    seal(store)


def test_no_number_from_zeros_is_no_failure_where_the_store_gives_none(
    store: Path, tmp_path: Path
) -> None:
    for engine in ("openvino", "onnxruntime"):
        write_share(store, engine, Share())
    done = run(store, "--to", "onnx", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    about = json.loads((tmp_path / "out" / "export.json").read_bytes())
    assert about["checked_with"].startswith("nothing")

    write_sample(Tiny(), store.parent)
    done = run(store, "--to", "onnx", "--out", tmp_path / "out", "--force")
    assert done.exit_code == 0, done.output
    about = json.loads((tmp_path / "out" / "export.json").read_bytes())
    assert about["checked_with"] == "sample.json"


def test_no_number_where_the_store_gives_one_is_a_failure(store: Path, tmp_path: Path) -> None:
    write_share(store, "openvino", nn.Flatten())
    write_share(store, "onnxruntime", Share())
    done = run(store, "--to", "onnx", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "not finite" in done.output


def test_usage(store: Path, tmp_path: Path) -> None:
    assert run(store, "--to", "tflite", "--out", tmp_path).exit_code == 2
    assert run(tmp_path / "nowhere", "--to", "onnx", "--out", tmp_path).exit_code == 1
    assert MANIFEST_FILE in run(tmp_path / "nowhere", "--to", "onnx", "--out", tmp_path).output
