"""SST-2 (Socher et al. 2013): is a sentence of a film review kind or not? By the MiniLM encoder.

The splits are the set's own. The reference is the encoder, frozen, with mean pooling and a linear
head: a logistic regression on the embeddings of the training split, fitted at first use. Needs the
extra `text`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from compressors.sources import MeanPooled, huggingface, minilm, tokenizer
from compressors.task import Samples, Split, Task
from compressors.tasks.text import embeddings, shallower

LENGTH = 64
_FILES: dict[Split, str] = {"train": "train", "validation": "dev", "test": "test"}


class Sst2(Task):
    """Samples: `ids` and `mask` (n, 64) int64 each; targets (n,) int64."""

    name = "sst2"
    labels = ("negative", "positive")
    free_dimensions: Mapping[str, tuple[int, ...]] = {"ids": (1,), "mask": (1,)}

    def network(self) -> nn.Module:
        network = huggingface(minilm(), MeanPooled(nn.Linear(384, 2)))
        assert network.head is not None
        network.head.load_state_dict(_head())
        return network.eval()

    def samples(self, split: Split) -> Samples:
        return _samples(split)

    def student(self) -> nn.Module:
        """Every other layer of the reference."""
        return shallower(copy.deepcopy(self.network()))  # type: ignore[arg-type]


TASK = Sst2()


def weights() -> Path:
    return Path(os.environ["GEARSHIFT_BENCH_WEIGHTS"]) / "sst2-head.safetensors"


@cache
def _head() -> dict[str, torch.Tensor]:
    if weights().exists():
        return load_file(weights())
    train = _samples("train")
    encoder = huggingface(minilm(), MeanPooled())
    fit: Any = LogisticRegression(max_iter=2000).fit(embeddings(encoder, train), train.targets)
    # Two logits whose difference is the regression's one.
    rows = np.concatenate([-fit.coef_, fit.coef_]) / 2
    bias = np.concatenate([-fit.intercept_, fit.intercept_]) / 2
    head = {"head.weight": rows, "head.bias": bias}
    tensors = {name: torch.from_numpy(each.astype(np.float32)) for name, each in head.items()}
    weights().parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, weights())
    return tensors


@cache
def _samples(split: Split) -> Samples:
    path = Path(os.environ["GEARSHIFT_BENCH_DATA"]) / "sst2" / f"{_FILES[split]}.tsv"
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if line]
    encoded = tokenizer(minilm(), LENGTH).encode_batch([sentence for sentence, _ in rows])
    ids = np.array([each.ids for each in encoded], dtype=np.int64)
    mask = np.array([each.attention_mask for each in encoded], dtype=np.int64)
    return Samples({"ids": ids, "mask": mask}, np.array([label for _, label in rows], np.int64))
