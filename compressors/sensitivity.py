"""Which layers hurt: each is changed alone, and the network's outputs and score say how much.

Whatever the change (quantised, of a lower rank, with weights at zero), it is a context manager that
changes one layer and puts it back:

    def halved(layer: nn.Module) -> AbstractContextManager[None]:
        return replaced(layer, weight=layer.weight / 2)

    found = layer_sensitivity(network, task, samples, halved, layers_of(network, (nn.Linear,)))

A score on few samples hardly moves when one layer does, so both are measured: the drop of the score
is what counts, the error of the outputs tells layers apart whose drop is the same. Measured on
validation samples, never on test ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compressors.interface import run
from compressors.task import Samples, Task
from compressors.verify import relative_error

Change = Callable[[nn.Module], AbstractContextManager[object]]
"""Changes one layer for as long as the context lasts."""


@dataclass(frozen=True)
class Effect:
    """What a change does to a network.

    Attributes:
        drop: the score before minus the score after, in the metric's units; negative: it gained.
        error: of the outputs, relative (root of summed squares), the largest of all outputs.
    """

    drop: float
    error: float


@dataclass(frozen=True)
class LayerSensitivity(Effect):
    """What changing one layer alone does; `layer` is the module's dotted name."""

    layer: str


class Probe:
    """A network as it is on some samples, to compare changes with. Computes in float32."""

    def __init__(self, network: nn.Module, task: Task, samples: Samples) -> None:
        self.network, self.task, self.samples = network.eval(), task, samples
        self._outputs = self._run()
        self.score = self._score(self._outputs)

    def effect(self, change: Change, layers: Sequence[str]) -> Effect:
        """Of changing all of `layers` at once; the network is put back."""
        with ExitStack() as changed:
            for name in layers:
                changed.enter_context(change(self.network.get_submodule(name)))
            outputs = self._run()
        error = max(relative_error(self._outputs[name], outputs[name]) for name in outputs)
        return Effect(drop=self.score - self._score(outputs), error=error)

    def _run(self) -> dict[str, np.ndarray]:
        with layers_called():
            return run(self.network, self.samples.inputs, self.task.outputs)

    def _score(self, outputs: dict[str, np.ndarray]) -> float:
        return float(np.mean(self.task.score(outputs, self.samples.targets)))


def layer_sensitivity(
    network: nn.Module,
    task: Task,
    samples: Samples,
    change: Change,
    layers: Sequence[str],
    progress: Callable[[float, str], None] = lambda _fraction, _text: None,
) -> list[LayerSensitivity]:
    """What `change` does to each of `layers` alone, in their order. `network` is left as it came,
    in eval mode; one pass over `samples` a layer."""
    probe = Probe(network, task, samples)
    found = []
    for index, name in enumerate(layers):
        progress(index / len(layers), f"sensitivity of {name}")
        effect = probe.effect(change, [name])
        found.append(LayerSensitivity(effect.drop, effect.error, name))
    return found


def most_sensitive(found: Sequence[LayerSensitivity]) -> list[LayerSensitivity]:
    """The layer that hurts most first: by drop, then by error."""
    return sorted(found, key=lambda one: (-one.drop, -one.error, one.layer))


def layers_of(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Dotted names of the layers of these kinds (or derived ones), in the network's order. Layers
    inside of one that is in the list, such as attention's projections, are part of it."""
    found: list[str] = []
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and isinstance(module, kinds) and not inside:
            found.append(name)
    return found


@contextmanager
def replaced(layer: nn.Module, **tensors: Tensor) -> Iterator[None]:
    """`layer` with other values in the parameters named (same shapes), then as it was. Those of its
    parts are named by dots: `replaced(attention, **{"out_proj.weight": values})`."""
    parameters = {name: layer.get_parameter(name) for name in tensors}
    before = {name: parameter.data for name, parameter in parameters.items()}
    for name, tensor in tensors.items():
        if tensor.shape != before[name].shape:
            raise ValueError(
                f"{name}: expected shape {tuple(before[name].shape)}, got {tuple(tensor.shape)}"
            )
    try:
        for name, tensor in tensors.items():
            parameters[name].data = tensor.detach()
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = before[name]


@contextmanager
def layers_called() -> Iterator[None]:
    """Every layer is called as written: torch's transformer layers have a fused path in eval mode
    that reads their parts' weights and calls no part, so that hooks and replacements are unseen."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
