"""Rounding to the values that 8-bit integers can stand for, in float arithmetic.

A weight has one step for each output channel and integers from -127 to 127; an activation has one
step, and integers from 0 to 255 where it is never negative, else from -128 to 127:

    x ~ s clamp(round(x / s), bottom, top)

Layers are pure tensor maths here: who trains the steps (`Quantised`) and who only asks what
rounding does to one layer (`as_int8`) are different techniques.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from compressors.interface import run
from compressors.sensitivity import layers_called, replaced
from compressors.task import Samples, Task

Range = tuple[float, float]

_WEIGHT_TOP = 127
_SMALLEST = 1e-12  # a step of zero would divide by it
_ATTENTION_WEIGHTS = (
    "in_proj_weight",
    "q_proj_weight",
    "k_proj_weight",
    "v_proj_weight",
    "out_proj.weight",
)


def weight_steps(weight: Tensor) -> Tensor:
    """(outputs,) steps at which the largest weight of each output becomes 127."""
    return (weight.detach().flatten(1).abs().amax(1) / _WEIGHT_TOP).clamp_min(_SMALLEST)


def rounded_weight(weight: Tensor, steps: Tensor) -> Tensor:
    """The weight (outputs, ...) in multiples of its outputs' steps."""
    zeros = torch.zeros_like(steps, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, steps, zeros, 0, -_WEIGHT_TOP - 1, _WEIGHT_TOP
    )


def input_step(seen: Range) -> tuple[float, int, int]:
    """(step, bottom, top) for activations that were seen between `seen`."""
    low, high = seen
    bottom, top = (0, 255) if low >= 0 else (-128, 127)
    return max(max(high, -low) / top, _SMALLEST), bottom, top


def input_ranges(
    network: nn.Module, task: Task, samples: Samples, layers: Sequence[str]
) -> dict[str, Range]:
    """The smallest and largest input of each layer on `samples`, by its name; layers that are not
    called, or with integers alone, are absent."""
    found: dict[str, Range] = {}

    def observer(name: str) -> Callable[..., None]:
        def observe(_module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            for tensor in _floats((*given, *named.values())):
                low, high = found.get(name, (float("inf"), float("-inf")))
                found[name] = (min(low, tensor.min().item()), max(high, tensor.max().item()))

        return observe

    with ExitStack() as stack:
        for name in layers:
            handle = network.get_submodule(name).register_forward_pre_hook(
                observer(name), with_kwargs=True
            )
            stack.callback(handle.remove)
        stack.enter_context(layers_called())
        run(network, samples.inputs, task.outputs)
    return found


def as_int8(
    ranges: Mapping[nn.Module, Range],
) -> Callable[[nn.Module], AbstractContextManager[None]]:
    """A change for `compressors.sensitivity`: a layer's weights and inputs rounded to 8 bits."""

    @contextmanager
    def change(layer: nn.Module) -> Iterator[None]:
        weights = {
            name: rounded_weight(parameter, weight_steps(parameter))
            for name, parameter in layer.named_parameters()
            if name == "weight" or name in _ATTENTION_WEIGHTS
        }
        with ExitStack() as stack:
            stack.enter_context(replaced(layer, **weights))
            if layer in ranges:
                step, bottom, top = input_step(ranges[layer])

                def rounded(value: Any) -> Any:
                    if not (isinstance(value, Tensor) and value.is_floating_point()):
                        return value
                    return torch.fake_quantize_per_tensor_affine(value, step, 0, bottom, top)

                def hook(_m: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
                    return (
                        tuple(rounded(value) for value in given),
                        {key: rounded(value) for key, value in named.items()},
                    )

                handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            yield

    return change


class Quantised(nn.Module):
    """A convolution or linear layer whose weights and inputs are rounded, with steps that learn.

    In train mode gradients pass through the rounding as if it were not there, and reach the steps:
    with s = exp(t), an entry inside of the range gives t the gradient s (round(x/s) - x/s), one
    outside s times the integer it was clamped to (LSQ, Esser et al. 2019, arXiv 1902.08153). Steps
    are learnt as logarithms (Jain et al. 2019, arXiv 1903.08066): they stay positive, and a step of
    Adam changes each of them by the same share. In eval mode it runs torch's own operations, which
    exporters know.
    """

    def __init__(self, layer: nn.Module, seen: Range) -> None:
        super().__init__()
        self.layer: Any = layer
        step, self.bottom, self.top = input_step(seen)
        self.input_step = nn.Parameter(torch.tensor(step).log())
        self.weight_steps = nn.Parameter(weight_steps(self.weight).log())
        self._step = step

    def train(self, mode: bool = True) -> Self:
        # A plain number while nothing is learnt: torch.export knows no step that is a tensor.
        self._step = self.input_step.exp().item()
        return super().train(mode)

    @property
    def weight(self) -> Tensor:
        """The layer's own, for whoever reads a linear layer's weight without calling it."""
        weight: Tensor = self.layer.weight
        return weight

    @property
    def bias(self) -> Tensor | None:
        bias: Tensor | None = self.layer.bias
        return bias

    def forward(self, x: Tensor) -> Tensor:
        layer, weight = self.layer, self.layer.weight
        steps = self.weight_steps.exp()
        if self.training:
            x = round_through(x.float(), self.input_step.exp(), self.bottom, self.top)
            steps = steps.reshape(-1, *[1] * (weight.ndim - 1))
            weight = round_through(weight, steps, -_WEIGHT_TOP - 1, _WEIGHT_TOP)
        else:
            x = torch.fake_quantize_per_tensor_affine(x, self._step, 0, self.bottom, self.top)
            weight = rounded_weight(weight, steps.detach())
        if isinstance(layer, nn.Linear):
            return nn.functional.linear(x, weight, layer.bias)
        returned: Tensor = layer._conv_forward(x, weight, layer.bias)
        return returned


def round_through(x: Tensor, step: Tensor, bottom: int, top: int) -> Tensor:
    """`x` in whole multiples of `step`, with the gradients that `Quantised` tells of."""
    scaled = (x / step).clamp(bottom, top)
    return (scaled + (scaled.round() - scaled).detach()) * step


def quantise_layers(network: nn.Module, ranges: Mapping[str, Range]) -> None:
    """Put a `Quantised` in the place of every layer that `ranges` names; a layer that is in several
    places stays one layer."""
    made: dict[nn.Module, Quantised] = {}
    wanted = {network.get_submodule(name): seen for name, seen in ranges.items()}
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        if layer in wanted:
            made.setdefault(layer, Quantised(layer, wanted[layer]))
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, made[layer])


def _shapes_known_to_export() -> Any:
    """torch.export asks what shape an operation returns; these have no answer of their own."""

    def like(x: Tensor, *_others: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)

    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for kind in ("tensor", "channel"):
        name = f"fake_quantize_per_{kind}_affine_cachemask"
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
            library.impl(name, like, "Meta")
    return library


# Registered for as long as this lives.
_LIBRARY = _shapes_known_to_export()


def _floats(values: Sequence[Any]) -> list[Tensor]:
    return [v for v in values if isinstance(v, Tensor) and v.is_floating_point() and v.numel()]
