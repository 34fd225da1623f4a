"""The bundled text task: its passages, and the encoder on a handful of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from compressors import usertask
from compressors.sources import HuggingFace
from compressors.task import Split
from compressors.tasks import text

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@cache
def network() -> HuggingFace:
    return text.fitted(text.TASK.samples("train").batch(slice(0, 64)))


def test_no_passage_or_paragraph_is_in_two_splits() -> None:
    splits = [text.TASK.samples(split) for split in SPLITS]
    rows = [{row.tobytes() for row in each.inputs["ids"]} for each in splits]
    paragraphs = [set(each.clusters.tolist()) for each in splits if each.clusters is not None]
    for sets in (rows, paragraphs):
        assert len(sets) == 3
        assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert len(splits[0]) > 400
    assert len(splits[2]) > 300
    for each in splits:
        assert set(each.targets.tolist()) == set(range(len(text.TOPICS)))


def test_passages_are_sentences() -> None:
    found = [passage for passage, _, _ in text.passages()]
    assert len(set(found)) == len(found)
    assert not any("::=" in each or ">>>" in each or "****" in each for each in found)
    ids, mask = (text.TASK.samples("test").inputs[name] for name in ("ids", "mask"))
    assert ids.shape[1] == mask.shape[1] == text.LENGTH
    assert ids.dtype == mask.dtype == np.int64
    assert ((ids == 0) == (mask == 0)).all()  # padded where the mask says so, and only there


def test_the_head_learns_more_than_chance() -> None:
    train = text.TASK.samples("train").batch(slice(0, 64))
    other = text.TASK.samples("validation").batch(slice(0, 32))
    assert (text.embeddings(network(), train).argmax(1) == train.targets).mean() > 0.9
    assert (text.embeddings(network(), other).argmax(1) == other.targets).mean() > 2 / 8


def test_padding_changes_nothing() -> None:
    few = text.TASK.samples("test").batch(slice(0, 2))
    ids, mask = (torch.from_numpy(few.inputs[name]) for name in ("ids", "mask"))
    short = int(mask.sum(1).max())
    with torch.inference_mode():
        whole, cut = network()(ids, mask), network()(ids[:, :short], mask[:, :short])
    torch.testing.assert_close(whole, cut, atol=1e-4, rtol=1e-4)


def test_the_student_has_half_the_layers_and_the_same_interface() -> None:
    student = text.shallower(network())
    assert len(student.body.encoder.layer) == 3
    assert len(network().body.encoder.layer) == 6
    ids = torch.ones(2, 5, dtype=torch.int64)
    assert student(ids, ids).shape == (2, len(text.TOPICS))


def test_it_is_bundled() -> None:
    task = usertask.load("text")
    assert task.labels == tuple(text.TOPICS)
    assert task.free_dimensions == {"ids": (1,), "mask": (1,)}
