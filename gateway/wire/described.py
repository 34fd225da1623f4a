"""What the server and its models are, as the Open Inference Protocol v2 describes them.

Plain values, in the protocol's names: REST writes them as JSON, gRPC as messages of the same names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.about import VERSION
from gateway.lifecycle.fleet import ServedModel
from gateway.wire import classification
from router.card import TensorSpec

# Of the protocol, by the names that Triton gives them.
_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)

# How a model's configuration writes datatypes: as TYPE_FP32 and so on, but for text.
_CONFIG_TYPES = {"BYTES": "TYPE_STRING"}


def server() -> dict[str, Any]:
    """Server metadata."""
    return {"name": "gearshift", "version": VERSION, "extensions": list(_EXTENSIONS)}


def model(served: ServedModel, version: str | None = None) -> dict[str, Any]:
    """Model metadata, whose versions are the variants; or that of one variant, or alias.

    Raises:
        UnknownVariant: the version is none.
    """
    if version is None:
        versions, platform = sorted(served.cards), "gearshift"
    else:
        card = served.resolve(version)
        versions, platform = [card.variant], f"{card.engine.name}_{card.engine.format}"
    return {
        "name": served.name,
        "versions": versions,
        "platform": platform,
        "inputs": [_input(spec, served) for spec in _inputs(served)],
        "outputs": [_output(spec, served.labels) for spec in served.outputs],
    }


def config(served: ServedModel, max_batch: int) -> dict[str, Any]:
    """Model configuration, as Triton's "Model Configuration Extension" has it: only what is true
    here, in the JSON form of the message `ModelConfig`."""
    return {
        "name": served.name,
        "platform": "gearshift",
        "backend": "gearshift",
        "version_policy": {"all": {}},
        "max_batch_size": max_batch,
        "input": [_configured(spec) for spec in _inputs(served)],
        "output": [_configured(spec) for spec in served.outputs],
        "dynamic_batching": {},
    }


def _inputs(served: ServedModel) -> Iterable[TensorSpec]:
    """What clients send: where there is a processor, what that reads."""
    processed = served.inputs_by_name.processed
    return served.inputs if processed is None else processed.values()


def _input(spec: TensorSpec, served: ServedModel) -> dict[str, Any]:
    one = spec.model_dump(mode="json")
    if served.door is not None and spec.name == served.door.record.input:
        fills = [each for each in served.inputs if each.name in served.door.record.fills]
        one["parameters"] = {
            "processor": served.door.record.kind,
            # What may be sent instead.
            "instead_of": [each.model_dump(mode="json") for each in fills],
        }
    return one


def _output(spec: TensorSpec, labels: tuple[str, ...] | None) -> dict[str, Any]:
    one = spec.model_dump(mode="json")
    if own := classification.labels_of(spec, labels):
        one["parameters"] = {"labels": list(own)}
    return one


def _configured(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": _CONFIG_TYPES.get(spec.datatype, "TYPE_" + spec.datatype),
        "dims": list(spec.shape[1:]) or [1],
        **({} if spec.shape[1:] else {"reshape": {"shape": []}}),
    }
