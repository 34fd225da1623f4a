"""What logs and traces say of a request: the constraints that it stated, the status it ended with.

Nothing here is a caller's own text: numbers, words of ours, and names that the store has.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from gateway.wire import grpc_statuses, problems
from router.constraints import NONE, Constraints
from router.errors import GearshiftError


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
    return HTTPStatus.OK.value if error is None else problems.STATUSES[error]
