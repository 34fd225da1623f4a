"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747) by a residual network of 1.1 M
parameters.

Train is the first 55,000 of the set's training images, validation its last 5,000, test its own
10,000. The reference is the CIFAR network of He et al. 2016 (arXiv 1512.03385, section 4.2) with
twenty layers and width 32; this trains it, half an hour on two idle cores (147 s an epoch):

    GEARSHIFT_BENCH_DATA=DIR GEARSHIFT_BENCH_WEIGHTS=DIR \\
        python -m tests.bench.compression.tasks.fashion
"""

from __future__ import annotations

import gzip
import os
import time
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compressors import training
from compressors.task import Array, Samples, Split, Task
from compressors.tasks.digits import Residual

_VALIDATION = 5_000
_PAD = 2  # pixels that an image may move by while training


class Fashion(Task):
    """Samples: `image` (n, 1, 28, 28) float32, mean 0 and deviation 1; targets (n,) int64."""

    name = "fashion"
    labels = (
        "t-shirt", "trouser", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "boot",
    )  # fmt: skip

    def network(self) -> nn.Module:
        network = untrained()
        network.load_state_dict(load_file(weights()))
        return network.eval()

    def samples(self, split: Split) -> Samples:
        return _samples(split)

    def training_samples(self, epoch: int) -> Samples:
        return moved(epoch)

    def student(self) -> nn.Module:
        return Residual(24, (1, 1, 1))


TASK = Fashion()


def untrained() -> nn.Module:
    """The reference network before its training."""
    return Residual(32, (3, 3, 3))


def weights() -> Path:
    return Path(os.environ["GEARSHIFT_BENCH_WEIGHTS"]) / "fashion.safetensors"


@cache
def _samples(split: Split) -> Samples:
    part = "t10k" if split == "test" else "train"
    images = _read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    targets = _read(f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64)
    rows = {
        "train": slice(0, len(images) - _VALIDATION),
        "validation": slice(len(images) - _VALIDATION, None),
        "test": slice(None),
    }[split]
    # The training images' mean and standard deviation.
    scaled = (images[rows].astype(np.float32) / 255 - 0.286) / 0.353
    return Samples({"image": scaled}, targets[rows])


def _read(name: str, header: int) -> Array:
    folder = Path(os.environ["GEARSHIFT_BENCH_DATA"]) / "fashion-mnist"
    with gzip.open(folder / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def moved(epoch: int) -> Samples:
    """The training split, every image mirrored or not and moved by up to two pixels."""
    random = np.random.default_rng(epoch)
    samples = _samples("train")
    images = samples.inputs["image"]
    edge = images.min()
    padded = np.pad(
        images, ((0, 0), (0, 0), (_PAD, _PAD), (_PAD, _PAD)), constant_values=float(edge)
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (28, 28), axis=(2, 3))
    y, x = random.integers(0, 2 * _PAD + 1, (2, len(images)))
    drawn = windows[np.arange(len(images)), :, y, x]
    mirrored = random.random(len(images)) < 0.5
    drawn[mirrored] = drawn[mirrored, :, :, ::-1]
    return Samples({"image": np.ascontiguousarray(drawn)}, samples.targets)


def train(epochs: int = 12) -> None:
    """Train the reference and write its weights; prints validation scores, never test."""
    torch.manual_seed(0)
    network, begun = untrained(), time.monotonic()

    def told(fraction: float, text: str) -> None:
        if int(fraction * 1000) % 10 == 0:
            print(f"{text} {fraction:.1%} {time.monotonic() - begun:.0f} s", flush=True)

    how = training.Training(epochs=epochs, batch_size=128, learning_rate=4e-3, weight_decay=0.05)
    done = training.train(network, TASK, how, seed=0, progress=told)
    weights().parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), weights())
    print("validation:", " ".join(f"{score:.4f}" for score in done.scores))


if __name__ == "__main__":
    train()
