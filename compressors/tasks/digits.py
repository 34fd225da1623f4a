"""The bundled task: read a handwritten digit among clutter, on 24x24 canvases.

What is real: every digit. They are the 1,797 images that scikit-learn ships (8x8, 17 grey levels),
the test part of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin & Kaynak 1998).
What is composed: the canvas. One whole digit lies at a random place; 8 fragments (3x3 pixels) of
other digits lie at random places too, over it where they meet it, brighter pixel wins; then comes
Gaussian noise of standard deviation 0.15. The answer is the whole digit. The plain images are too
easy to choose between variants by: a network 20 times smaller is as good on them.

Splits are by source image, chosen once by seed and stratified by class: 400 sources for test (40
a class), 200 for validation, 1,197 for training, with 12, 12 and 10 canvases each. Fragments come
from sources of the same split alone, so no pixel of a test digit is ever seen in training. Canvases
that share a source are not independent: `clusters` holds the source's index in scikit-learn's data.

The reference is a residual network (He et al. 2016, arXiv 1512.03385) of 0.88 M parameters.
It reaches 96.0 % on validation and 96.9 % on test. Its weights lie beside this file; this makes
them anew, in about 7 minutes on 2 idle cores (24 s an epoch):

    python -m compressors.tasks.digits

Training, this and any technique's, draws fresh canvases from the training sources every epoch. This
keeps the epoch that scores best on validation, and then reports the accuracy on test, once. How
sums are ordered depends on the CPU and its number of threads, so the weights come out alike and not
bit for bit.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from compressors import training
from compressors.processing import Processing
from compressors.task import Array, Samples, Split, Task
from router.processor import ImageProcessor

WEIGHTS = Path(__file__).with_suffix(".safetensors")

CANVAS, DIGIT, FRAGMENT, FRAGMENTS, NOISE = 24, 8, 3, 8, 0.15
_SEED = 2026
_SPLITS: tuple[Split, ...] = ("test", "validation", "train")
_PER_CLASS = {"test": 40, "validation": 20}  # sources; training has the rest
_CANVASES = {"test": 12, "validation": 12, "train": 10}  # of each source


class _Block(nn.Module):
    """A residual block of two 3x3 convolutions; (n, c_in, h, w) to (n, c_out, h/stride, ...)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Residual(nn.Module):
    """A residual network of three stages of `blocks`, `width` channels doubled at each stage.

    `forward(image)`: (n, 1, 24, 24) float32 to logits (n, 10).
    """

    def __init__(self, width: int, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for index in range(count):
                stride = 2 if stage and not index else 1
                layers.append(_Block(channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(image)))
        return self.head(self.blocks(x).mean((2, 3)))  # type: ignore[no-any-return]


class Digits(Task):
    """See the module's docstring. Samples: `image` (n, 1, 24, 24) float32, digits 0 to 1 plus
    noise; targets (n,) int64."""

    name = "digits"
    labels = tuple("0123456789")

    def network(self) -> nn.Module:
        network = untrained()
        network.load_state_dict(load_file(WEIGHTS))
        return network.eval()

    def samples(self, split: Split) -> Samples:
        return _samples(split)

    def training_samples(self, epoch: int) -> Samples:
        rng = np.random.default_rng([_SEED, len(_SPLITS), epoch])
        return compose(sources()["train"], _CANVASES["train"], rng)

    def processor(self) -> Processing:
        return Processing(ImageProcessor(input="picture", pixels="image", mode="L"))

    def student(self) -> nn.Module:
        return Residual(12, (1, 1, 1))


TASK = Digits()


def untrained() -> nn.Module:
    """The reference network before its training."""
    return Residual(32, (4, 4, 2))


@cache
def sources() -> dict[Split, Array]:
    """Of each split, the (m,) indices of its images in scikit-learn's data. No index is in two."""
    target = load_digits().target
    rng = np.random.default_rng(_SEED)
    parts: dict[Split, list[Array]] = {split: [] for split in _SPLITS}
    for digit in range(10):
        rest = rng.permutation(np.flatnonzero(target == digit))
        for split, count in (
            ("test", _PER_CLASS["test"]),
            ("validation", _PER_CLASS["validation"]),
        ):
            parts[split].append(rest[:count])  # type: ignore[index]
            rest = rest[count:]
        parts["train"].append(rest)
    return {split: np.concatenate(chosen) for split, chosen in parts.items()}


def compose(own: Array, canvases: int, rng: np.random.Generator) -> Samples:
    """`canvases` random canvases of each source in `own`, with fragments of `own` alone."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    source = np.repeat(own, canvases)
    count = len(source)
    canvas = np.zeros((count, CANVAS, CANVAS), np.float32)
    row = np.arange(count)[:, None, None]

    def at(size: int, room: int) -> tuple[Array, Array]:
        """A window of `size` at a random place in `room`: its rows (n, s, 1), columns (n, 1, s)."""
        corner = rng.integers(0, room - size + 1, (2, count))
        steps = np.arange(size)
        return (
            corner[0][:, None, None] + steps[None, :, None],
            corner[1][:, None, None] + steps[None, None, :],
        )

    def paste(patch: Array, size: int) -> None:
        y, x = at(size, CANVAS)
        canvas[row, y, x] = np.maximum(canvas[row, y, x], patch)

    paste(images[source], DIGIT)
    for _ in range(FRAGMENTS):
        other = own[rng.integers(0, len(own), count)]
        y, x = at(FRAGMENT, DIGIT)
        paste(images[other[:, None, None], y, x], FRAGMENT)
    canvas += np.float32(NOISE) * rng.standard_normal(canvas.shape, dtype=np.float32)
    return Samples({"image": canvas[:, None]}, data.target[source].astype(np.int64), source)


@cache
def _samples(split: Split) -> Samples:
    rng = np.random.default_rng([_SEED, _SPLITS.index(split)])
    own = compose(sources()[split], _CANVASES[split], rng)
    # Any first few samples (a smoke test, a calibration) should show all digits.
    return own.batch(rng.permutation(len(own)))


def main() -> None:
    """Train the reference, write its weights, and print what it reaches."""
    begun = time.monotonic()

    def told(fraction: float, text: str) -> None:
        left = (time.monotonic() - begun) * (1 - fraction) / fraction
        print(f"\r{text}, {fraction:.0%}, about {left:.0f} s left  ", end="", file=sys.stderr)

    torch.manual_seed(_SEED)
    network = untrained()
    how = training.Training(epochs=14, batch_size=128, learning_rate=4e-3, weight_decay=0.05)
    trained = training.train(network, TASK, how, seed=_SEED, progress=told)
    save_file(network.state_dict(), WEIGHTS)
    print(f"\nvalidation accuracy by epoch: {', '.join(f'{s:.4f}' for s in trained.scores)}")
    test = training.validation_score(TASK.network(), TASK, TASK.samples("test"))
    print(f"test accuracy {test:.4f}; {time.monotonic() - begun:.0f} s; {WEIGHTS.name} written")


if __name__ == "__main__":
    main()
