"""One training loop, for whatever trains: AdamW, one cycle, the best epoch by validation score.

AdamW: Loshchilov & Hutter 2019 (arXiv 1711.05101). One cycle of the learning rate, so that few
epochs suffice: Smith & Topin 2018 (arXiv 1708.07120).

Images are trained channels-last and, where the CPU multiplies bf16 in hardware, under bf16
autocast: on 2 cores of an AVX512-BF16 CPU a step of a width-32 residual network took 0.25 s so,
0.43 s without bf16 and 0.50 s without either. Both follow from the data and the CPU and never from
a timing, so that a seed gives the same network twice on one machine.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.errors import NotApplicable, NotFinite
from compressors.task import Samples, Task
from compressors.technique import Settings

Loss = Callable[[tuple[Tensor, ...], Tensor, Tensor], Tensor]
"""(outputs, targets, rows) to a scalar; `rows` are the (n,) indices in the epoch's samples."""

_EVALUATED_AT_ONCE = 256  # large enough for full speed, small enough for any memory
_WARM_UP = 0.25  # of the steps, with a rising learning rate


class Training(Settings):
    """How to train; the settings that every training technique shares."""

    epochs: int = Field(4, ge=1, le=1000, description="passes over the training split")
    batch_size: int = Field(64, ge=2, le=4096, description="samples a step")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="at the peak of the one cycle")
    weight_decay: float = Field(0.02, ge=0, le=1, description="AdamW's, of weights alone")


@dataclass(frozen=True)
class Trained:
    """What came of it: the validation score of each epoch, and the epoch that was kept (from 0)."""

    scores: tuple[float, ...]
    best: int


def train(
    network: nn.Module,
    task: Task,
    how: Training,
    *,
    seed: int,
    progress: Callable[[float, str], None],
    loss: Loss | None = None,
    epoch_samples: Callable[[int], Samples] | None = None,
    after_step: Callable[[], None] | None = None,
    together: Sequence[nn.Module] = (),
    first_epoch: int = 0,
) -> Trained:
    """Train `network` in place on the task's training samples and leave it in eval mode with the
    weights of the epoch that scored best on `validation`. `test` is not touched.

    Args:
        seed: of the order of samples and of dropout; the caller's random state is kept.
        progress: told (fraction, text) after every step.
        loss: instead of `task.loss`.
        epoch_samples: the training samples of an epoch, as many at each; instead of
            `task.training_samples`.
        after_step: called after every step of the optimiser, before anything is evaluated: where
            pruned weights are set to zero again.
        together: modules whose parameters train along, in train mode, such as a layer that only
            the loss uses. They are not called here and keep their last weights.
        first_epoch: where to take up the one cycle of `how.epochs`, as if those before had run.

    Raises:
        NotFinite: the loss became NaN or infinite; the message names the epoch and the step.
    """
    validation = task.samples("validation")
    draw = epoch_samples or task.training_samples
    samples = draw(0)
    size = min(how.batch_size, len(samples))
    # A last, smaller batch would disturb batch norm; shuffling drops other samples every epoch.
    steps = len(samples) // size
    images = _images(samples)
    criterion: Loss = loss or (lambda outputs, targets, _rows: task.loss(outputs, targets))
    with torch.random.fork_rng(devices=[]), _layout(network, images):
        torch.manual_seed(seed)
        shuffle = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(
            _groups((network, *together), how.weight_decay), lr=how.learning_rate
        )
        total = how.epochs * steps + 1
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            how.learning_rate,
            total_steps=total,
            # Under 1.5 steps OneCycleLR divides by zero where the whole training is a few steps.
            pct_start=max(_WARM_UP, 1.5 / total),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps of the schedule before any of the optimiser
            for _ in range(first_epoch * steps):
                schedule.step()
        scores: list[float] = []
        best: dict[str, Any] = {}
        for epoch in range(first_epoch, how.epochs):
            if epoch:
                samples = draw(epoch)
            order = shuffle.permutation(len(samples))
            for module in (network, *together):
                module.train()
            for step in range(steps):
                rows = order[step * size : (step + 1) * size]
                batch = samples.batch(rows)
                outputs = forward(network, batch)
                targets = torch.from_numpy(np.ascontiguousarray(batch.targets))
                value = criterion(outputs, targets, torch.from_numpy(rows))
                if not math.isfinite(value.item()):
                    raise NotFinite(
                        f"training: the loss became {value.item()} in epoch {epoch + 1}, "
                        f"step {step + 1}; a lower learning_rate may help"
                    )
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if after_step is not None:
                    after_step()
                schedule.step()
                past = (epoch - first_epoch) * steps + step + 1
                done = past / ((how.epochs - first_epoch) * steps)
                progress(done, f"epoch {epoch + 1} of {how.epochs}")
            scores.append(validation_score(network, task, validation))
            if scores.index(max(scores)) == len(scores) - 1:
                best = copy.deepcopy(network.state_dict())
        network.load_state_dict(best)
    network.eval()
    return Trained(tuple(scores), first_epoch + scores.index(max(scores)))


def validation_score(network: nn.Module, task: Task, samples: Samples) -> float:
    """The mean score of `network` on `samples`, with the arithmetic that training uses."""
    outputs = outputs_of(network, samples)
    named = {name: o.numpy() for name, o in zip(task.outputs, outputs, strict=True)}
    return float(np.mean(task.score(named, samples.targets)))


def outputs_of(network: nn.Module, samples: Samples) -> tuple[Tensor, ...]:
    """Every output, float32 (n, ...), of `network` in eval mode, which it is left in."""
    network.eval()
    parts = []
    with torch.no_grad(), _layout(network, _images(samples)):
        for rows in np.array_split(
            np.arange(len(samples)), math.ceil(len(samples) / _EVALUATED_AT_ONCE)
        ):
            parts.append(forward(network, samples.batch(rows)))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def forward(network: nn.Module, samples: Samples) -> tuple[Tensor, ...]:
    """Every output, float32, of `network` for one batch, with the arithmetic of training."""
    images = _images(samples)
    inputs = [torch.from_numpy(np.ascontiguousarray(a)) for a in samples.inputs.values()]
    if images:
        inputs = [tensor.to(memory_format=torch.channels_last) for tensor in inputs]
    # Small matrix products lose more to the casts than they gain: images only.
    with torch.autocast("cpu", torch.bfloat16, enabled=images and has_fast_bf16()):
        returned = network(*inputs)
    outputs = returned if isinstance(returned, tuple | list) else (returned,)
    return tuple(o.float() if o.is_floating_point() else o for o in outputs)


def thaw(network: nn.Module, technique: str) -> None:
    """Let every parameter train where none does, as in a network frozen for inference; one frozen
    in part was frozen on purpose.

    Raises:
        NotApplicable: there is no parameter.
    """
    there = [p for p in network.parameters() if p.is_floating_point()]
    if not there:
        raise NotApplicable(f"{technique}: the network has no weights to train")
    if not any(parameter.requires_grad for parameter in there):
        for parameter in there:
            parameter.requires_grad_(True)


def hold_zeros(network: nn.Module) -> Callable[[], None]:
    """For `after_step`: sets to zero again every weight that is zero now. Training leaves next to
    no weight at exactly zero, so these were pruned. A weight of zeros alone, such as one that a
    residual branch starts from, is free."""
    held = []
    for parameter in network.parameters():
        zeros = parameter.detach() == 0
        if parameter.ndim > 1 and zeros.any() and not zeros.all():
            held.append((parameter, zeros))

    def again() -> None:
        with torch.no_grad():
            for parameter, zeros in held:
                parameter.masked_fill_(zeros, 0)

    return again


def in_training_layout(network: nn.Module, samples: Samples) -> nn.Module:
    """A copy of `network` in eval mode, without gradients, in the memory layout that `train` uses
    for such samples: for one that is asked at every step."""
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    if _images(samples):
        twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return twin


def _images(samples: Samples) -> bool:
    return all(array.ndim == 4 for array in samples.inputs.values())


def _groups(modules: Sequence[nn.Module], decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and norms do not, as is usual since He et al. 2019 (1812.01187)."""
    there = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in there if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in there if p.ndim <= 1], "weight_decay": 0.0},
    ]


@contextmanager
def _layout(network: nn.Module, images: bool) -> Iterator[None]:
    if images:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        # As it came: exporters take the strides for part of the network.
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
