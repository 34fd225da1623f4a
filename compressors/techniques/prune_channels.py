"""prune-channels: whole channels are removed, and the network is fine-tuned.

Which layers must lose the same channels (through residual additions, norms, flattening) is found by
tracing the network: the dependency graph of Fang et al. 2023, "DepGraph: Towards Any Structural
Pruning" (arXiv 2301.12900), from their library torch-pruning. By default a channel matters as much
as the weights of its whole group weigh (their L2 norm, after Li et al. 2017, arXiv 1608.08710); in
every group the lightest go. What the network returns keeps its width.

The layers come out smaller, with no masks: what is saved is saved on any engine. Channel counts
stay multiples of 8, because odd ones can run slower than what they replace. Layers that divide
their channels among groups or heads, and what recurrent layers read, stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compressors.errors import NotApplicable
from compressors.export import first_line
from compressors.surgery import structure
from compressors.surgery.structure import Pruning
from compressors.surgery.units import Slot, Units
from compressors.technique import Context, Network, Technique

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PRUNED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *_TRANSPOSED)
_WEIGHED = (*_PRUNED, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# torch-pruning would divide what stays among the same groups or heads: other channels together.
_LEFT_ALONE = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.GroupNorm)
# How attentions written by hand call what divides their width.
_HEADED = ("num_heads", "n_heads", "num_attention_heads", "nhead", "heads", "attention_head_size")


class _PruneChannels(Technique):
    Config = Pruning
    needs = frozenset({"training"})
    summary = "Removes the channels of every layer that matter least, then fine-tunes."

    def apply(self, network: Network, context: Context, config: Pruning) -> Network:
        """The network with fewer channels, fine-tuned.

        Raises:
            NotApplicable: no layer can lose a channel, or the network computes with a fixed number
                of them.
            NotFinite: the loss became NaN.
        """
        structure.prune("prune-channels", "channels", network.module, context, config, channels)
        return replace(network, module=network.module)


TECHNIQUE = _PruneChannels()


def channels(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Units]:
    """The channels of `module`, by the first layer that makes them.

    Raises:
        NotApplicable: the network cannot be traced.
    """
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # of parameters that it leaves alone, which is fine
            graph = tp.DependencyGraph().build_dependency(module, inputs, verbose=False)
            return list(_groups(module, graph))
    except Exception as error:
        raise NotApplicable(
            f"prune-channels: torch-pruning cannot follow this network: {first_line(error)}"
        ) from error


def _groups(module: nn.Module, graph: Any) -> Iterator[Units]:
    names = {layer: name for name, layer in module.named_modules()}
    fixed = {p for m in module.modules() if isinstance(m, _LEFT_ALONE) for p in m.parameters()}
    kept = [*_output_layers(graph), *_projections(module)]
    for group in graph.get_all_groups(ignored_layers=kept, root_module_types=list(_PRUNED)):
        root = group[0].dep.target.module
        count = graph.get_out_channels(root)
        targets = [dependency.target.module for dependency, _ in group]
        if any(isinstance(t, _LEFT_ALONE) or t in fixed or _in_groups(t) for t in targets):
            continue
        slots = tuple(_slots(group, graph, names))
        yield Units(names[root], count, slots, _Removal(graph, root, group[0].dep.handler))


class _Removal:
    def __init__(self, graph: Any, root: nn.Module, function: Any) -> None:
        self._graph, self._root, self._function = graph, root, function

    def __call__(self, gone: list[int]) -> None:
        # The group is made anew: other groups' removals shift places in concatenations.
        self._graph.get_pruning_group(self._root, self._function, gone).prune()


def _slots(group: Any, graph: Any, names: dict[nn.Module, str]) -> Iterator[Slot]:
    for index, (dependency, places) in enumerate(group):
        layer, roots = dependency.target.module, group[index].root_idxs
        if not isinstance(layer, _WEIGHED) or layer.weight is None or None in roots:
            continue
        makes = graph.is_out_channel_pruning_fn(dependency.handler)
        # A transposed convolution's weight is (in, out, ...), all others' (out, in, ...).
        across = makes == bool(getattr(layer, "transposed", False))
        dimension = int(across and layer.weight.ndim > 1)
        units = torch.full((layer.weight.shape[dimension],), -1)
        units[torch.tensor(places)] = torch.tensor(roots)
        yield Slot(f"{names[layer]}.weight", dimension, units, reads=not makes)


def _in_groups(layer: nn.Module) -> bool:
    """Whether a convolution has groups of several channels, which must stay equal."""
    groups = getattr(layer, "groups", 1)
    allowed = (1,) if isinstance(layer, _TRANSPOSED) else (1, getattr(layer, "out_channels", 1))
    return groups not in allowed


def _projections(module: nn.Module) -> Iterator[nn.Module]:
    """The layers whose outputs an attention divides among its heads."""
    for parent in module.modules():
        if any(hasattr(parent, attribute) for attribute in _HEADED):
            yield from (child for child in parent.children() if isinstance(child, nn.Linear))


def _output_layers(graph: Any) -> Iterator[nn.Module]:
    """The layers whose channels are the network's outputs: upwards from what nothing reads, to the
    first layers that choose their own width."""
    nodes = list(graph.module2node.values())
    waiting = [node for node in nodes if not node.outputs]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node.module, _PRUNED):
            yield node.module
        else:
            waiting.extend(node.inputs)
