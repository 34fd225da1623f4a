"""A task's padding is held to what it promises before anything is built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressors import lowering, padded, resizing, usertask
from compressors.errors import BuildError, TaskError
from compressors.interface import Interface, describe
from compressors.task import Samples, Split, Task
from compressors.technique import Network
from router.card import CARD_FILE, VariantCard
from router.padding import CutOutput, PaddedInput, Padding
from tests.compressors.builds import build_of

LENGTH = 6
BOTH = (PaddedInput(input="ids", dimension=1), PaddedInput(input="mask", dimension=1))
TOKENS = CutOutput(output="tokens", dimension=1)


class Tagger(nn.Module):
    """Ids and their mask to a value for each token and one for each row; `blind` to the mask."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 1)
        self.blind = blind

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        words = self.embedding(ids)
        counted = torch.ones_like(words[..., :1]) if self.blind else mask.unsqueeze(-1).float()
        mean = (words * counted).sum(1) / counted.sum(1).clamp(min=1.0)
        return self.head(words + mean.unsqueeze(1)).squeeze(-1), self.head(mean)


class Tags(Task):
    name = "tags"
    outputs = ("tokens", "row")
    free_dimensions = {"ids": (1,), "mask": (1,)}  # noqa: RUF012

    def __init__(self, *padding: Padding, blind: bool = False) -> None:
        self.padding = padding
        self._blind = blind

    def network(self) -> nn.Module:
        return Tagger(self._blind).eval()

    def samples(self, split: Split) -> Samples:  # noqa: ARG002
        rng = np.random.default_rng(0)
        ids = rng.integers(1, 20, (8, LENGTH))
        mask = (np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (8, 1))).astype(np.int64)
        return Samples({"ids": ids, "mask": mask}, np.zeros(8))


def interface(task: Tags) -> Interface:
    return describe(task, task.network(), task.samples("validation"))


@pytest.mark.parametrize("buckets", [(4, 6), (8, 16), (3, 5, 7), (2,)])
def test_what_the_network_ignores_may_be_filled_up(buckets: tuple[int, ...]) -> None:
    task = Tags(Padding(inputs=BOTH, outputs=(TOKENS,), buckets=buckets))
    padded.check(task.network(), interface(task))
    alone, filled, cuts = padded.example(interface(task))
    own, whole = alone["ids"].shape[1], filled["ids"].shape[1]
    assert own < whole and whole in buckets
    assert [(cut.length, cut.bucket) for cut in cuts] == [(own, whole)]


@pytest.mark.parametrize(
    ("padding", "blind", "told"),
    [
        (Padding(inputs=BOTH, outputs=(TOKENS,), buckets=(8,)), True, "changes output 'tokens'"),
        (Padding(inputs=BOTH, buckets=(8,)), False, r"'tokens' has shape \(4, 8\)"),
        (
            Padding(
                inputs=(BOTH[0], PaddedInput(input="mask", dimension=1, value=1)),
                outputs=(TOKENS,),
                buckets=(8,),
            ),
            False,
            "must ignore what its mask leaves out",
        ),
        (Padding(inputs=BOTH[:1], outputs=(TOKENS,), buckets=(8,)), False, "padded together"),
        (
            Padding(inputs=(PaddedInput(input="idz", dimension=1),), buckets=(8,)),
            False,
            "there is no input 'idz'",
        ),
    ],
)
def test_a_declaration_that_is_not_true_is_the_tasks_fault(
    padding: Padding, blind: bool, told: str
) -> None:
    task = Tags(padding, blind=blind)
    with pytest.raises(TaskError, match=told):
        padded.check(task.network(), interface(task))


def test_a_program_that_does_not_ignore_it_is_refused(tmp_path: Path) -> None:
    task = Tags(Padding(inputs=BOTH, outputs=(TOKENS,), buckets=(4, 8)))
    network = Network(task.network())
    lower = lowering.get("openvino").lower
    resizing.check(lower(network, interface(task), tmp_path / "good"), network, interface(task))
    # As a converter does that takes the mask for all ones.
    other = lower(Network(Tagger(blind=True).eval()), interface(task), tmp_path / "blind")
    everything = Samples(
        {"ids": task.samples("test").inputs["ids"], "mask": np.ones((8, LENGTH), np.int64)},
        np.zeros(8),
    )
    unmasked = describe(task, task.network(), everything)
    with pytest.raises(BuildError, match=r"with ids \(4, 8\), mask \(4, 8\)"):
        resizing.check(other, network, unmasked)


_TASK = """
from tests.compressors.test_padded import BOTH, TOKENS, Padding, Tags

class Mine(Tags):
    name = "tags"

    def __init__(self):
        super().__init__(Padding(inputs=BOTH, outputs=(TOKENS,), buckets=BUCKETS))

    def score(self, outputs, targets):
        return targets == 0

    def loss(self, outputs, targets):
        return outputs[1].mean()
"""


def build(folder: Path, buckets: str) -> VariantCard:
    (folder / "task.py").write_text(_TASK.replace("BUCKETS", buckets))
    build_of("[variants.fp32]\n", folder / "store", task=f"{folder / 'task.py'}:Mine")
    text = (folder / "store" / "tags" / "fp32" / CARD_FILE).read_bytes()
    return VariantCard.model_validate_json(text)


def test_the_card_says_what_the_task_declares(tmp_path: Path) -> None:
    [padding] = build(tmp_path, "(4, 8)").padding
    assert padding == Padding(inputs=BOTH, outputs=(TOKENS,), buckets=(4, 8))


def test_a_padding_that_is_none_is_told_by_the_tasks_file(tmp_path: Path) -> None:
    task = _TASK.replace("BUCKETS", "(4, 8)")
    (tmp_path / "task.py").write_text(task.replace("super().__init__(", "super().__init__('ids', "))
    with pytest.raises(TaskError, match=r"task.py: padding: expected a tuple of router.padding"):
        usertask.load(f"{tmp_path / 'task.py'}:Mine")
