"""What the server and its models are, as the Open Inference Protocol v2 describes them.

Plain values, in the protocol's names: REST writes them as JSON, gRPC as messages of the same names.
"""

from __future__ import annotations

from typing import Any

from gateway.about import VERSION
from gateway.fleet import ServedModel


def server() -> dict[str, Any]:
    """Server metadata."""
    return {"name": "gearshift", "version": VERSION, "extensions": ["binary_tensor_data"]}


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
        "inputs": [spec.model_dump(mode="json") for spec in served.inputs],
        "outputs": [spec.model_dump(mode="json") for spec in served.outputs],
    }
