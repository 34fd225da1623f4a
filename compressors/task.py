"""The contract that a user implements: a trained network, its data, and a score per sample.

    class Flowers(Task):
        name = "flowers"

        def network(self) -> nn.Module: ...            # trained, any device-free nn.Module
        def samples(self, split: Split) -> Samples: ...  # "train", "validation", "test"

Everything else has a default that fits classification with one logit per class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressors.processing import Processing
from router.padding import Padding

Split = Literal["train", "validation", "test"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """Samples of one split.

    Attributes:
        inputs: the network's inputs by name, in the order of its `forward`, each (n, ...).
        targets: (n, ...), what the loss and the score compare with.
        clusters: (n,) integers, equal where samples share a source and so are not independent;
            None when every sample is its own source.

    Raises:
        ValueError: no samples, something else than arrays, or arrays that disagree on n; the
            message names the array.
    """

    inputs: dict[str, Array]
    targets: Array
    clusters: Array | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("inputs: expected at least one array, got none")
        for name, array in (*self.inputs.items(), ("targets", self.targets)):
            if not isinstance(array, np.ndarray):
                what = name if array is self.targets else f"inputs[{name!r}]"
                raise ValueError(f"{what}: expected a numpy array, got {type(array).__name__}")
        count = len(self.targets)
        if count == 0:
            raise ValueError("targets: expected at least one sample, got none")
        for name, array in self.inputs.items():
            if len(array) != count:
                raise ValueError(
                    f"inputs[{name!r}]: expected {count} samples, as in targets, got {len(array)}"
                )
        if self.clusters is not None and self.clusters.shape != (count,):
            raise ValueError(f"clusters: expected shape ({count},), got {self.clusters.shape}")

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: slice | Array) -> Samples:
        """The samples at `index`."""
        return Samples(
            {name: array[index] for name, array in self.inputs.items()},
            self.targets[index],
            None if self.clusters is None else self.clusters[index],
        )


class Task(ABC):
    """The reference network, its data and its metric."""

    name: str
    """The model's name: what callers of the gateway write in the path."""
    metric: str = "accuracy"
    labels: tuple[str, ...] | None = None
    """Class names, by index, when the outputs are classes."""
    outputs: tuple[str, ...] = ("logits",)
    """Names of what the network returns, in order."""
    free_dimensions: Mapping[str, tuple[int, ...]] = {}
    """Dimensions, besides the batch, that may have any size at serving, by input: `{"ids": (1,)}`
    for a sequence. Samples are padded to one size all the same; an input with a mask says which
    part counts. A size that two inputs share must be free in both, and is taken for the same."""
    padding: tuple[Padding, ...] = ()
    """Free dimensions that the gateway may fill up, so that requests of several lengths run
    together: for a network that ignores what its mask leaves out. The build holds it to that.

        padding = (
            Padding(
                inputs=(
                    PaddedInput(input="ids", dimension=1, value=0),
                    PaddedInput(input="mask", dimension=1, value=0),
                ),
                buckets=(16, 32, 64),
            ),
        )
    """

    @abstractmethod
    def network(self) -> nn.Module:
        """A new instance of the trained reference network, float32, on the CPU."""

    @abstractmethod
    def samples(self, split: Split) -> Samples:
        """The samples of one split; the same at every call. No sample is in two splits.

        Training and calibration use `train`, every choice uses `validation`, and only the
        card's figures use `test`.
        """

    def training_samples(self, epoch: int) -> Samples:  # noqa: ARG002
        """What training sees in `epoch`, from 0: the `train` split, or the same samples augmented
        anew, by `epoch` alone; as many at every epoch."""
        return self.samples("train")

    def student(self) -> nn.Module | None:
        """A new, untrained, smaller network with the same inputs and outputs, for distillation."""
        return None

    def processor(self) -> Processing | None:
        """What lets clients send text or pictures instead of the network's inputs
        (`compressors.processing`); None where they send those."""
        return None

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        """(n,) finite scores, one per sample, higher is better; the metric is their mean, which
        must lie in [0, 1]. A metric that is no mean over samples, such as a rank correlation,
        becomes one by `compressors.metrics.pseudo_values`."""
        logits = outputs[self.outputs[0]]
        return np.asarray(logits.argmax(axis=-1) == targets, dtype=np.float64)

    def loss(self, outputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> torch.Tensor:
        """What fine-tuning minimises: a scalar, averaged over the batch."""
        return nn.functional.cross_entropy(outputs[0], targets)
