"""What a network's weights see on samples: their inputs, the zeros they lead to, their gradients.

A weight matrix is seen as (groups, outputs of a group, columns): a linear layer has one group and a
column for each input; a convolution has a column for each place under its kernel, in the order of
`weight.flatten(1)`, and its rows are the positions that the kernel visits ("unfolded"). Of the
inputs X (rows, columns) two things are kept, as means over rows, so that memory does not grow with
the samples: the second moments of the columns (squared norms, as Wanda uses: arXiv 2306.11695) and
the Gram matrix X^T X, the Hessian of the layer's squared reconstruction error (arXiv 2301.00774).

The calls of `linear`, `conv` and multi-head attention are intercepted, whoever makes them, rather
than modules' forward passes: attention calls no module for its projections, and functional ReLUs
are no modules. What recurrent layers see is inside one call: they have gradients and no inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from compressors.surgery.unfold import each, padding, unfold
from compressors.task import Samples, Task

Seen = Literal["moments", "gram", "zeros", "gradient", "squared_gradient"]

_AT_ONCE = 1 << 24  # floats of unfolded inputs: 64 MiB
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_DENSE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONV_CALLS = ("conv1d", "conv2d", "conv3d")
# What stands between a layer and its non-linearity and keeps the channels in place.
_BETWEEN = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "dropout", "contiguous"}
_BETWEEN |= {"add", "add_", "__add__", "__iadd__", "__radd__", "clone", "to", "float"}
_NONLINEAR = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "threshold", "threshold_"}
_NONLINEAR |= {"leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "celu", "gelu", "silu", "mish"}
_NONLINEAR |= {"hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus"}
_ATTENTION = inspect.signature(F.multi_head_attention_forward)


@dataclass(frozen=True)
class LayerStatistics:
    """Of one weight; None where it was not asked for or cannot be seen.

    Attributes:
        rows: how many rows `moments` and `gram` are means over; 0 where no input was seen.
        moments: (groups, columns) mean square of each column.
        gram: (groups, columns, columns) X^T X / rows; its diagonal is `moments`.
        zeros: (outputs,) share of exact zeros after the layer's non-linearity; None without one.
        gradient: of the task's loss, the mean over samples; the weight's shape.
        squared_gradient: the mean over samples of each one's squared gradient: the diagonal of the
            empirical Fisher information; the weight's shape.
    """

    rows: int = 0
    moments: Tensor | None = None
    gram: Tensor | None = None
    zeros: Tensor | None = None
    gradient: Tensor | None = None
    squared_gradient: Tensor | None = None


def weights_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of linear, convolutional, attention and recurrent layers by dotted name, such as
    "head.weight", "attention.in_proj_weight" or "lstm.weight_hh_l0"; a shared one once.

    Embeddings, norms and biases are not among them, nor weights that a parametrisation computes.
    """
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for layer_name, layer in network.named_modules():
        if not isinstance(layer, (*_DENSE, nn.MultiheadAttention, *_RECURRENT)):
            continue
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.ndim > 1 and "weight" in name and parameter.is_floating_point():
                full = f"{layer_name}.{name}" if layer_name else name
                found.setdefault(id(parameter), (full, parameter))
    return dict(found.values())


def draw(task: Task, count: int, seed: int) -> Samples:
    """`count` samples of the training split, or all there are, without repeats."""
    train = task.samples("train")
    rows = np.random.default_rng(seed).choice(len(train), min(count, len(train)), replace=False)
    return train.batch(rows)


def hidden(statistics: Mapping[str, LayerStatistics]) -> list[str]:
    """The weights whose inputs cannot be seen: of recurrent layers, and of attention between
    different inputs. A linear or convolutional layer without inputs was not called."""
    return [
        name
        for name, seen in statistics.items()
        if seen.rows == 0 and name.rpartition(".")[2] != "weight"
    ]


def observe(
    network: nn.Module,
    task: Task,
    samples: Samples,
    what: Iterable[Seen],
    *,
    only: Iterable[str] | None = None,
    batch: int = 32,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, LayerStatistics]:
    """Statistics of every weight of `weights_of`, by its name. Weights and their `grad` stay as
    they are; the network is left in eval mode, in which it also runs here.

    Args:
        task: whose loss the gradients are of.
        samples: to run; of `train`, as from `draw`.
        what: which statistics to make. "squared_gradient" takes a backward pass a sample.
        only: names of the weights to look at, where not all fit into memory: a Gram matrix has
            columns^2 numbers.
        batch: samples a pass.

    Raises:
        ValueError: `only` names a weight that is not there.
    """
    asked = frozenset(what)
    weights = weights_of(network)
    if only is not None:
        chosen = list(only)
        if unknown := [name for name in chosen if name not in weights]:
            raise ValueError(f"only: no weight called {', '.join(unknown)}")
        weights = {name: weights[name] for name in chosen}
    network.eval()
    passes: list[tuple[int, Callable[[Samples], None]]] = []
    watcher = _Watcher(weights, asked)
    gradients = _Gradients(network, task, weights)
    if asked & {"moments", "gram", "zeros"}:
        passes.append((batch, lambda part: watcher.watch(network, part)))
    if "gradient" in asked and "squared_gradient" not in asked:
        passes.append((batch, gradients.add))
    if "squared_gradient" in asked:
        passes.append((1, gradients.add))
    for index, (size, look) in enumerate(passes):
        for start in range(0, len(samples), size):
            look(samples.batch(slice(start, start + size)))
            if progress is not None:
                done = min(1.0, (start + size) / len(samples))
                progress((index + done) / len(passes), "looking at calibration samples")
    return {
        name: LayerStatistics(
            rows=watcher.rows[name],
            moments=watcher.mean(watcher.moments, name) if "moments" in asked else None,
            gram=watcher.mean(watcher.grams, name) if "gram" in asked else None,
            zeros=watcher.share_of_zeros(name),
            gradient=gradients.mean(gradients.sums, name) if "gradient" in asked else None,
            squared_gradient=(
                gradients.mean(gradients.squares, name) if "squared_gradient" in asked else None
            ),
        )
        for name in weights
    }


class _Watcher(TorchFunctionMode):
    """Sums over what passes through the calls that use one of `weights`."""

    def __init__(self, weights: dict[str, nn.Parameter], what: frozenset[Seen]) -> None:
        super().__init__()
        self._names = {id(weight): name for name, weight in weights.items()}
        self._what = what
        self.rows = dict.fromkeys(weights, 0)
        self.moments: dict[str, Tensor] = {}
        self.grams: dict[str, Tensor] = {}
        self._zeros: dict[str, tuple[Tensor, int]] = {}
        # By id of a tensor on its way to a non-linearity: itself, so that the id stays its own,
        # the weights whose outputs it holds, and its dimension of channels.
        self._made: dict[int, tuple[Tensor, frozenset[str], int]] = {}

    def watch(self, network: nn.Module, samples: Samples) -> None:
        with torch.no_grad(), self:
            network(*_tensors(samples))
        self._made.clear()

    def mean(self, sums: dict[str, Tensor], name: str) -> Tensor | None:
        return sums[name] / self.rows[name] if name in sums else None

    def share_of_zeros(self, name: str) -> Tensor | None:
        zeros, count = self._zeros.get(name, (None, 0))
        return None if zeros is None else zeros / count

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            self._attention(func, args, kwargs)
            return result
        call = getattr(func, "__name__", "")
        if call == "linear" or call in _CONV_CALLS:
            self._layer(call, args, kwargs, result)
        elif "zeros" in self._what and isinstance(result, Tensor):
            if call in _NONLINEAR:
                self._count_zeros(args[0] if args else kwargs["input"], result)
            elif call in _BETWEEN:
                self._pass_on(args, result)
        return result

    def _layer(self, call: str, args: Any, kwargs: Any, result: Tensor) -> None:
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        name = self._names.get(id(weight))
        if name is None:
            return
        x = args[0] if args else kwargs["input"]
        if call == "linear":
            self._inputs(name, x.reshape(-1, 1, 1, x.shape[-1]), lambda part: part[:, 0])
        else:
            names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            self._convolution(name, weight, given, x)
        if "zeros" in self._what:
            channels = -1 if call == "linear" else -1 - (weight.ndim - 2)
            self._made[id(result)] = (result, frozenset((name,)), channels)

    def _convolution(self, name: str, weight: Tensor, given: dict[str, Any], x: Tensor) -> None:
        kernel, groups = tuple(weight.shape[2:]), given.get("groups", 1)
        stride = each(given.get("stride", 1), kernel)
        dilation = each(given.get("dilation", 1), kernel)
        padded = F.pad(x, padding(given.get("padding", 0), kernel, dilation))
        if x.ndim == weight.ndim - 1:
            padded = padded[None]
        self._inputs(name, padded, lambda part: unfold(part, kernel, stride, dilation, groups))

    def _inputs(self, name: str, x: Tensor, rows_of: Callable[[Tensor], Tensor]) -> None:
        """Add up (rows, groups, columns), a part of the samples at a time."""
        if not self._what & {"moments", "gram"}:
            return
        step = max(1, _AT_ONCE // max(1, rows_of(x[:1]).numel()))
        for part in torch.split(x.detach().float(), step):
            rows = rows_of(part)
            self.rows[name] += len(rows)
            if "moments" in self._what:
                _add(self.moments, name, rows.square().sum(0))
            if "gram" in self._what:
                by_group = rows.transpose(0, 1)
                _add(self.grams, name, by_group.transpose(1, 2) @ by_group)

    def _attention(self, func: Any, args: Any, kwargs: Any) -> None:
        given = _ATTENTION.bind(*args, **kwargs)
        given.apply_defaults()
        at = given.arguments
        query, key, value = at["query"], at["key"], at["value"]
        if at["use_separate_proj_weight"]:
            pairs = [("q_proj_weight", query), ("k_proj_weight", key), ("v_proj_weight", value)]
        else:
            # Rows of the one matrix that see different inputs have no inputs in common to show.
            pairs = [("in_proj_weight", query)] if query is key and key is value else []
        width = query.shape[-1]
        before = {
            **at,
            "out_proj_weight": torch.eye(width, dtype=query.dtype),
            "out_proj_bias": None,
            "need_weights": False,
        }
        out = self._names.get(id(at["out_proj_weight"]))
        for weight, x in pairs:
            name = self._names.get(id(at[weight]))
            if name is not None:
                self._inputs(name, x.reshape(-1, 1, 1, x.shape[-1]), lambda part: part[:, 0])
        if out is not None and self._what & {"moments", "gram"}:
            seen = func(**before)[0]
            self._inputs(out, seen.reshape(-1, 1, 1, width), lambda part: part[:, 0])

    def _pass_on(self, args: Any, result: Tensor) -> None:
        sources = [self._made[id(a)] for a in args if id(a) in self._made]
        if sources:
            names = frozenset[str]().union(*(source[1] for source in sources))
            self._made[id(result)] = (result, names, sources[0][2])

    def _count_zeros(self, x: Tensor, result: Tensor) -> None:
        if id(x) not in self._made:
            return
        _, names, channels = self._made[id(x)]
        counted = (result == 0).transpose(0, channels).flatten(1).sum(1).double()
        for name in names:
            before, count = self._zeros.get(name, (torch.zeros_like(counted), 0))
            self._zeros[name] = (before + counted, count + result.numel() // len(counted))
        if result is x:  # in place: what goes on is no longer the layer's own output
            del self._made[id(x)]


class _Gradients:
    """Sums over gradients of the task's loss, batch by batch."""

    def __init__(self, network: nn.Module, task: Task, weights: dict[str, nn.Parameter]) -> None:
        self._network, self._task, self._weights = network, task, weights
        self._samples = 0
        self.sums: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}

    def add(self, samples: Samples) -> None:
        weights = list(self._weights.values())
        frozen = [weight for weight in weights if not weight.requires_grad]
        for weight in frozen:
            weight.requires_grad_(True)
        try:
            with torch.enable_grad():
                returned = self._network(*_tensors(samples))
                outputs = returned if isinstance(returned, tuple | list) else (returned,)
                targets = torch.from_numpy(np.ascontiguousarray(samples.targets))
                loss = self._task.loss(tuple(outputs), targets)
                found = torch.autograd.grad(loss, weights, allow_unused=True)
        finally:
            for weight in frozen:
                weight.requires_grad_(False)
        self._samples += len(samples)
        for name, gradient in zip(self._weights, found, strict=True):
            if gradient is not None:
                _add(self.sums, name, gradient * len(samples))
                _add(self.squares, name, gradient.square() * len(samples))

    def mean(self, sums: dict[str, Tensor], name: str) -> Tensor:
        """Zeros where the loss does not depend on the weight."""
        if name not in sums:
            return torch.zeros_like(self._weights[name])
        return sums[name] / self._samples


def _tensors(samples: Samples) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in samples.inputs.values()]


def _add(sums: dict[str, Tensor], name: str, more: Tensor) -> None:
    if name in sums:
        sums[name] += more
    else:
        sums[name] = more.detach().clone()
