"""Which operations of a converted OpenVINO model belong to which module of the network.

OpenVINO's converter names an operation after the node of torch's graph that it comes from
("linear_3/aten.linear.default/MatMul"), and those nodes know the modules they were traced in. Where
it folds a batch norm into a convolution the convolution loses its name; the addition that follows
is then called after the batch norm, whose node says which convolution it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

from compressors.errors import BuildError

_MULTIPLYING = frozenset({"Convolution", "GroupConvolution", "ConvolutionBackpropData"})
_MULTIPLYING |= {"GroupConvolutionBackpropData", "MatMul", "ScaledDotProductAttention"}


def decoder(exported: torch.export.ExportedProgram) -> Any:
    """What `openvino.convert_model` makes of an exported program before it converts, so that the
    graph whose names it uses can be looked at."""
    return TorchFXPythonDecoder.from_exported_program(exported)


def operations_of(model: Any, decoded: Any, modules: Sequence[str]) -> list[str]:
    """Names of the multiplying operations of `model` inside of `modules` (dotted names), sorted.

    Raises:
        BuildError: a module has none; the message names it.
    """
    found: set[str] = set()
    for module in modules:
        nodes = _nodes_within(decoded, module)
        mine = {
            operation.get_friendly_name()
            for operation in model.get_ops()
            if operation.get_type_name() in _MULTIPLYING and _names(operation) & nodes
        }
        if not mine:
            raise BuildError(
                f"layer {module!r} is to stay in float, and no operation of the converted network "
                "comes from it"
            )
        found |= mine
    return sorted(found)


def _nodes_within(decoded: Any, module: str) -> set[str]:
    """Names of the nodes traced in `module`, and of the batch norms that read one of them."""
    nodes = list(decoded.pt_module.graph.nodes)
    inside = {node for node in nodes if _within(node, module)}
    norms = {n for n in nodes if "batch_norm" in str(n.target) and inside & set(n.args[:1])}
    return {node.name for node in inside | norms}


def _within(node: Any, module: str) -> bool:
    if node.op != "call_function":
        return False
    stack = (path for path, _ in (node.meta.get("nn_module_stack") or {}).values())
    return any(path == module or path.startswith(f"{module}.") for path in stack)


def _names(operation: Any) -> set[str]:
    """First parts of the operation's name and of the addition's that takes its result."""
    named = [operation]
    for port in operation.output(0).get_target_inputs():
        if port.get_node().get_type_name() == "Add":
            named.append(port.get_node())
    return {node.get_friendly_name().split("/")[0] for node in named}
