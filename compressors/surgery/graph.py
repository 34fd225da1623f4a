"""Which features between linear layers can be removed: read off the network's exported graph.

A feature is removable where every linear layer that makes it and every one that reads it is known,
and in between it is only changed by itself: by activations, dropout, batch norm, or sums and
products of features at the same place (residual additions, gated units). Anything else that reads
it - a layer norm, an attention, a reshaping, the network's output - keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressors.export import quiet

_ALONE = (
    "abs celu clamp clone contiguous detach dropout elu exp gelu hardsigmoid hardswish hardtanh "
    "leaky_relu log_sigmoid mish neg pow relu relu6 selu sigmoid silu softplus square sqrt tanh to "
    "alias rsub hardtanh_ celu_ elu_ hardswish_ leaky_relu_ mish_ relu_ relu6_ selu_ sigmoid_ "
    "silu_ tanh_ dropout_ clamp_ erf"
)
_TWO = "add add_ sub sub_ mul mul_ div div_ maximum minimum"
_UNARY, _BINARY = frozenset(_ALONE.split()), frozenset(_TWO.split())


@dataclass
class Features:
    """Features that go together or not at all.

    Attributes:
        writers, readers: the linear layers that make them and that read them.
        norms: the batch norms on the way.
    """

    writers: list[nn.Linear] = field(default_factory=list)
    readers: list[nn.Linear] = field(default_factory=list)
    norms: list[nn.BatchNorm1d] = field(default_factory=list)
    name: str = ""
    kept: bool = False
    merged: Features | None = None

    def root(self) -> Features:
        return self if self.merged is None else self.merged.root()


def linear_features(module: nn.Module, inputs: Sequence[Tensor]) -> list[Features]:
    """The removable features of `module`, each named after the layer that makes them first.

    Raises:
        Exception: whatever torch.export raises on a network that it cannot trace.
    """
    with quiet(), torch.enable_grad():
        # With gradients: without, a transformer layer in eval mode is one fused operation.
        exported = torch.export.export(module, tuple(inputs))
    owners: dict[str, tuple[str, nn.Module]] = {}
    parameters = exported.graph_signature.inputs_to_parameters
    for node in exported.graph.nodes:
        name = parameters.get(node.name, "")
        # A weight that two operations share would have to lose the same of both.
        if name.endswith(".weight") and len(node.users) == 1:
            layer_name = name.removesuffix(".weight")
            owners[node.name] = layer_name, module.get_submodule(layer_name)
    found: list[Features] = []
    flowing: dict[Any, Features] = {}
    for node in exported.graph.nodes:
        read = [flowing[i].root() for i in node.all_input_nodes if i in flowing]
        packet = getattr(node.target, "overloadpacket", None)
        operation = "" if packet is None else packet.__name__
        if operation == "linear":
            _linear(node, owners, flowing, found)
        elif not read or operation == "_assert_tensor_metadata":
            continue
        elif operation in _UNARY or (operation in _BINARY and _alone(node)):
            flowing[node] = read[0]
        elif operation in _BINARY and _side_by_side(node, flowing):
            flowing[node] = _merge(read)
        elif operation == "batch_norm" and _batch_norm(node, owners, read[0]):
            flowing[node] = read[0]
        else:
            for features in read:
                features.kept = True
    return [f for f in found if f.merged is None and not f.kept and f.readers]


def _linear(
    node: Any,
    owners: dict[str, tuple[str, nn.Module]],
    flowing: dict[Any, Features],
    found: list[Features],
) -> None:
    source, weight = node.args[0], node.args[1]
    name, layer = owners.get(getattr(weight, "name", ""), ("", None))
    if source in flowing:
        if type(layer) is nn.Linear:
            flowing[source].root().readers.append(layer)
        else:
            flowing[source].root().kept = True
    if type(layer) is nn.Linear:
        flowing[node] = Features(writers=[layer], name=name)
        found.append(flowing[node])


def _alone(node: Any) -> bool:
    """Whether the one tensor of features meets only numbers, or tensors equal for all features."""
    width = _shape(node)[-1]
    wide = [a for a in node.args if hasattr(a, "meta") and _shape(a)[-1:] == (width,)]
    return len(wide) == 1 and _shape(wide[0]) == _shape(node)


def _side_by_side(node: Any, flowing: dict[Any, Features]) -> bool:
    operands = [a for a in node.args if hasattr(a, "meta")]
    return all(a in flowing and _shape(a)[-1] == _shape(node)[-1] for a in operands)


def _batch_norm(node: Any, owners: dict[str, tuple[str, nn.Module]], features: Features) -> bool:
    _, layer = owners.get(getattr(node.args[1], "name", ""), ("", None))
    if type(layer) is not nn.BatchNorm1d or len(_shape(node)) != 2:
        return False
    features.norms.append(layer)
    return True


def _merge(several: Sequence[Features]) -> Features:
    first = several[0].root()
    for other in (f.root() for f in several[1:]):
        if other is not first:
            first.writers += other.writers
            first.readers += other.readers
            first.norms += other.norms
            first.kept |= other.kept
            other.merged = first
    return first


def _shape(node: Any) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()
