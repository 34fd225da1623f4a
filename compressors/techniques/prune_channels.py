"""prune-channels: whole channels are removed, and the network is fine-tuned.

Which layers must lose the same channels (through residual additions, norms, flattening) is found by
tracing the network: the dependency graph of Fang et al. 2023, "DepGraph: Towards Any Structural
Pruning" (arXiv 2301.12900), from their library torch-pruning. A channel matters as much as the
weights of its whole group weigh (their group L2 norm, after Li et al. 2017, arXiv 1608.08710); in
every group the lightest go. What the network returns keeps its width.

The layers come out smaller, with no masks: what is saved is saved on any engine. Channel counts
stay multiples of 8, because odd ones can run slower than what they replace.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch_pruning as tp
from pydantic import Field
from torch import nn

from compressors import training
from compressors.errors import NotApplicable
from compressors.task import Samples
from compressors.technique import Context, Network, Technique
from compressors.training import Training

_PRUNED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class _Config(Training):
    epochs: int = Field(3, ge=1, le=1000, description="passes over the training split")
    ratio: float = Field(
        0.5, gt=0, lt=1, description="channels to remove, as a share of each layer"
    )
    round_to: int = Field(8, ge=1, le=64, description="channels that stay are a multiple of this")


class _PruneChannels(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Removes the lightest channels of every layer, then fine-tunes."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with fewer channels, fine-tuned.

        Raises:
            NotApplicable: no layer can lose a channel, or the network computes with a fixed number
                of them.
            NotFinite: the loss became NaN.
        """
        example = context.task.samples("train").batch(slice(0, 2))
        if not remove_channels(network.module, example, config.ratio, config.round_to):
            raise NotApplicable(
                f"prune-channels: no layer between input and output can lose {config.ratio:.0%} "
                f"of its channels in multiples of {config.round_to}"
            )
        how = Training(**config.model_dump(include=set(Training.model_fields)))
        training.train(
            network.module, context.task, how, seed=context.seed, progress=context.progress
        )
        return replace(network, module=network.module)


TECHNIQUE = _PruneChannels()


def remove_channels(
    module: nn.Module, example: Samples, ratio: float, round_to: int
) -> dict[str, list[int]]:
    """Remove channels in place; by layer (norms too), the output channels that went.

    Raises:
        NotApplicable: the network cannot be traced, or fails with fewer channels.
    """
    # Tracing follows gradients, and the fine-tuning that comes next needs them.
    module.eval().requires_grad_(True)
    inputs = tuple(torch.from_numpy(array.copy()) for array in example.inputs.values())
    before = _shapes(module(*inputs))
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # of parameters that it leaves alone, which is fine
            graph = tp.DependencyGraph().build_dependency(module, inputs, verbose=False)
            removed = _remove(module, graph, ratio, round_to)
    except Exception as error:
        raise NotApplicable(
            f"prune-channels: torch-pruning cannot follow this network: {error}"
        ) from error
    try:
        with torch.no_grad():
            after = _shapes(module(*inputs))
    except Exception as error:
        raise NotApplicable(
            f"prune-channels: the network computes with a fixed number of channels: {error}"
        ) from error
    if after != before:
        raise NotApplicable(
            f"prune-channels: the outputs would change from shape {before} to {after}"
        )
    return removed


def _remove(module: nn.Module, graph: Any, ratio: float, round_to: int) -> dict[str, list[int]]:
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    names = {layer: name for name, layer in module.named_modules()}
    kept = list(_output_layers(graph))
    lightest: list[tuple[nn.Module, Any, list[int]]] = []
    # All are weighed before any goes: a removal shifts the places at which other groups' channels
    # enter a concatenation.
    for group in graph.get_all_groups(ignored_layers=kept, root_module_types=list(_PRUNED)):
        root, function = group[0].dep.target.module, group[0].dep.handler
        channels = graph.get_out_channels(root)
        # Groups of a grouped convolution must stay equal: those are left as they are.
        if any(getattr(dep.target.module, "groups", 1) not in (1, channels) for dep, _ in group):
            continue
        staying = math.ceil(channels * (1 - ratio) / round_to) * round_to
        weights = importance(group)
        if staying >= channels or weights is None:
            continue
        gone = weights.argsort(stable=True)[: channels - staying].tolist()
        lightest.append((root, function, sorted(gone)))
    removed: dict[str, list[int]] = {}
    for root, function, channels_gone in lightest:
        removal = graph.get_pruning_group(root, function, channels_gone)
        for dependency, indices in removal:
            target = dependency.target.module
            if target in names and graph.is_out_channel_pruning_fn(dependency.handler):
                removed[names[target]] = sorted(int(index) for index in indices)
        removal.prune()
    return removed


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


def _shapes(returned: Any) -> list[tuple[int, ...]]:
    outputs = returned if isinstance(returned, tuple | list) else (returned,)
    return [tuple(output.shape) for output in outputs]
