"""What logs and traces say of a request: the constraints that it stated, the status it ended with.

Nothing here is a caller's own text: numbers, words of ours, and names that the store has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from gateway.messages import InferRequest
from gateway.wire import grpc_statuses, problems
from router.constraints import NONE, Constraints
from router.errors import GearshiftError

_OK = HTTPStatus.OK.value


class Knows(Protocol):
    """What the store has; whatever else a caller names is their own word, and not repeated."""

    def __call__(self, model: str, variant: str | None = None) -> bool:
        """Whether there is such a model, and of it such a variant or alias."""


class Failed(NamedTuple):
    """What may be said of a request that was not answered; the model is empty if there is none."""

    model: str
    rows: int
    constraints: Constraints


def failed(model: str, request: InferRequest | None, knows: Knows) -> Failed:
    """What may be said of it.

    Args:
        model: as its sender wrote it.
        request: None where it could not be read.
    """
    if not knows(model):
        return Failed("", 0, NONE)
    if request is None:
        return Failed(model, 0, NONE)
    constraints = request.constraints
    if constraints.variant is not None and not knows(model, constraints.variant):
        constraints = replace(constraints, variant=None)
    return Failed(model, request.rows, constraints)


@lru_cache(maxsize=1024)
def asked(constraints: Constraints) -> Mapping[str, Any]:
    """Those that were stated, by their keys in `parameters`; shared, so not to be changed."""
    stated: dict[str, Any] = {
        "max_latency_ms": constraints.max_latency_ms,
        "min_accuracy": constraints.min_accuracy and str(constraints.min_accuracy),
        "max_cost_usd_per_million": constraints.max_cost_usd_per_million,
        "optimize": constraints.optimize,
        "variant": constraints.variant,
        "relax": ",".join(constraints.relax) or None,
        "priority": None if constraints.priority == NONE.priority else constraints.priority,
    }
    return {key: value for key, value in stated.items() if value is not None}


def status(protocol: str, error: type[GearshiftError] | None) -> int | str:
    """HTTP's number, or gRPC's name."""
    if protocol == "grpc":
        return grpc_statuses.OK if error is None else grpc_statuses.NAMES[error]
    return _OK if error is None else problems.STATUSES[error]
