"""STS-B (Cer et al. 2017, arXiv 1708.00055): how alike are two sentences? By the MiniLM encoder.

The splits are the set's own. The metric is Spearman's rank correlation of the cosine of the two
embeddings with what people said, as a score per sample. The reference is the encoder as its package
brings it; nothing is trained on the set before compression. Needs the extra `text`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from compressors import metrics
from compressors.sources import MeanPooled, huggingface, minilm, tokenizer
from compressors.task import Array, Samples, Split, Task

LENGTH = 64
_FILES: dict[Split, str] = {"train": "train", "validation": "dev", "test": "test"}


class Pair(nn.Module):
    """The cosine (n, 1) of two sentences' embeddings by one encoder; ids and masks (n, t)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids_a: Tensor, mask_a: Tensor, ids_b: Tensor, mask_b: Tensor) -> Tensor:
        a, b = self.encoder(ids_a, mask_a), self.encoder(ids_b, mask_b)
        return nn.functional.cosine_similarity(a, b).unsqueeze(1)


class StsB(Task):
    """Samples: ids and masks (n, 64) int64 of both sentences; targets (n,) float32, 0 to 5."""

    name = "stsb"
    metric = "spearman"
    outputs = ("cosine",)
    free_dimensions: Mapping[str, tuple[int, ...]] = dict.fromkeys(
        ("ids_a", "mask_a", "ids_b", "mask_b"), (1,)
    )

    def network(self) -> nn.Module:
        return Pair(huggingface(minilm(), MeanPooled())).eval()

    def samples(self, split: Split) -> Samples:
        return _samples(split)

    def student(self) -> nn.Module:
        """Every other layer of the reference."""
        student = copy.deepcopy(self.network())
        body: Any = student.encoder.body  # type: ignore[union-attr]
        body.encoder.layer = body.encoder.layer[1::2]
        body.config.num_hidden_layers = len(body.encoder.layer)
        return student

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        return metrics.spearman(outputs["cosine"], targets)

    def loss(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs[0][:, 0], targets / 5)


TASK = StsB()


@cache
def _samples(split: Split) -> Samples:
    path = Path(os.environ["GEARSHIFT_BENCH_DATA"]) / "stsb" / f"sts-{_FILES[split]}.csv"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    cut = tokenizer(minilm(), LENGTH)
    inputs: dict[str, Array] = {}
    for side, column in (("a", 5), ("b", 6)):
        encoded = cut.encode_batch([row[column].strip() for row in rows])
        inputs[f"ids_{side}"] = np.array([e.ids for e in encoded], dtype=np.int64)
        inputs[f"mask_{side}"] = np.array([e.attention_mask for e in encoded], dtype=np.int64)
    return Samples(inputs, np.array([row[4] for row in rows], dtype=np.float32))
