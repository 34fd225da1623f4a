"""What a network computes on its way: which modules return features, and what they return.

A feature is (n, c), (n, tokens, c) or (n, c, h, w), for n samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressors.task import Samples


@dataclass(frozen=True)
class Tap:
    """Where features are read: what the module `name` returns, or what goes into it."""

    name: str
    features: Tensor = field(repr=False)
    entering: bool = False

    @property
    def places(self) -> tuple[int, ...]:
        """(h, w), (tokens,), or () for vectors."""
        shape = tuple(self.features.shape)
        return shape[2:] if len(shape) == 4 else shape[1:-1]


@dataclass(frozen=True)
class Traced:
    """What modules return for a few samples, in the order in which they end; and the entry of the
    linear layer that ends last, None where that is not a vector for each sample."""

    taps: dict[str, Tap]
    head: Tap | None


def traced(network: nn.Module, samples: Samples) -> Traced:
    """Runs `network` in eval mode. Its outputs themselves are no features."""
    taps: dict[str, Tap] = {}
    heads: list[Tap] = []
    network.eval()

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, returned: Any) -> None:
            tensor = _tensor(returned)
            if tensor is not None and len(tensor) == len(samples) and 2 <= tensor.ndim <= 4:
                taps.pop(name, None)
                taps[name] = Tap(name, tensor)
            if isinstance(module, nn.Linear) and given[0].ndim == 2:
                heads.append(Tap(name, given[0], entering=True))

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in network.named_modules() if name]
    try:
        inputs = [torch.from_numpy(array.copy()) for array in samples.inputs.values()]
        with torch.no_grad():
            returned = network(*inputs)
    finally:
        for each in hooks:
            each.remove()
    outputs = returned if isinstance(returned, tuple | list) else (returned,)
    kept = {name: tap for name, tap in taps.items() if not any(tap.features is o for o in outputs)}
    return Traced(kept, heads[-1] if heads else None)


def matching(student: Traced, teacher: Traced) -> list[tuple[Tap, Tap]]:
    """Pairs by equal places, the last layer of each network that has them; where there is none,
    what enters the heads."""
    one = {tap.places: tap for tap in student.taps.values() if tap.places}
    other = {tap.places: tap for tap in teacher.taps.values() if tap.places}
    pairs = [(one[places], other[places]) for places in one if places in other]
    if not pairs and student.head is not None and teacher.head is not None:
        return [(student.head, teacher.head)]
    return pairs


@contextmanager
def captured(network: nn.Module, taps: list[Tap]) -> Iterator[dict[int, Tensor]]:
    """By the index of the tap, what it read when the network ran last."""
    seen: dict[int, Tensor] = {}

    def keep(index: int, entering: bool) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, given: Any, returned: Any) -> None:
            tensor = _tensor(given[0] if entering else returned)
            assert tensor is not None
            seen[index] = tensor

        return hook

    hooks = [
        network.get_submodule(tap.name).register_forward_hook(keep(index, tap.entering))
        for index, tap in enumerate(taps)
    ]
    try:
        yield seen
    finally:
        for each in hooks:
            each.remove()


def _tensor(returned: Any) -> Tensor | None:
    """The first tensor of what a module returned: recurrent layers return their state too, and
    Hugging Face's modules a mapping."""
    if isinstance(returned, Mapping):
        returned = next(iter(returned.values()), None)
    if isinstance(returned, tuple | list):
        return _tensor(returned[0]) if returned else None
    return returned if isinstance(returned, Tensor) and not returned.is_nested else None
