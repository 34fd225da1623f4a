"""Networks read from disk: real folders and files, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from compressors.errors import NotApplicable, TaskError
from compressors.sources import Exported, MeanPooled, exported, huggingface
from compressors.technique import Network
from tests.compressors.few import Few, applied, context_of, short
from tests.tiny_task import Tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, num_labels=3,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("bert")
    BertForSequenceClassification(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "tiny.pt2"
    batch = torch.export.Dim("batch", min=1)
    network = Tiny().network()
    torch.export.save(
        torch.export.export(network, (torch.zeros(4, 1, 8, 8),), dynamic_shapes=({0: batch},)), path
    )
    return path


def test_a_folders_own_output(folder: Path) -> None:
    network = huggingface(folder)
    ids = torch.randint(0, 50, (3, 7))
    assert network(ids, torch.ones_like(ids)).shape == (3, 3)
    assert not network.training


def test_what_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"got no config\.json"):
        huggingface(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(
        TaskError, match=r"expected weights in \*\.safetensors, got .*pytorch_model"
    ):
        huggingface(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["OursAlone"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TaskError, match="got OursAlone; code out of a folder is not run"):
        huggingface(tmp_path)
    config["architectures"] = ["BertForTokenClassification"]
    config["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TaskError, match=r"the weights lack bert\.encoder\.layer\.2"):
        huggingface(tmp_path)


def test_mean_pooling_counts_what_the_mask_says() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [5.0], [5.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert MeanPooled()(hidden, mask).tolist() == [[2.0], [0.0]]
    head = nn.Linear(1, 4)
    assert MeanPooled(head)(hidden, mask).shape == (2, 4)


class FromProgram(Few):
    def __init__(self, path: Path) -> None:
        self.path = path

    def network(self) -> nn.Module:
        return exported(self.path)


def test_a_program_answers_as_the_network_did(program: Path) -> None:
    network = exported(program)
    image = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(image), Tiny().network()(image))
    assert isinstance(network.train().eval(), Exported)


def test_a_copy_of_a_program_is_another(program: Path, recwarn: pytest.WarningsRecorder) -> None:
    network = exported(program)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(parameter.any() for parameter in network.parameters())
    assert not [each.message for each in recwarn if each.category is FutureWarning]


def test_techniques_on_a_program(program: Path) -> None:
    task = FromProgram(program)
    assert applied("bf16", task).numerics.precision == "bf16"
    assert applied("distil", task).module is not None  # into the task's student
    for name in ("int8-mixed", "low-rank", "prune-channels", "qat"):
        technique, config = short(name)
        with pytest.raises(NotApplicable, match=name):
            technique.apply(Network(task.network()), context_of(task), config)


def test_what_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="there is no such file"):
        exported(tmp_path / "none.pt2")
    (tmp_path / "a.pt2").write_bytes(b"not a zip")
    with pytest.raises(TaskError, match=r"a\.pt2: not an exported program"):
        exported(tmp_path / "a.pt2")
