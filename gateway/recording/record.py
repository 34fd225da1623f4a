"""A request that has ended, as the access log and traces tell of it: made once for both."""

from __future__ import annotations

from typing import NamedTuple

from gateway.messages import InferRequest, InferResponse, Origin
from gateway.recording.said_of import Knows, failed
from router.constraints import Constraints
from router.decision import Decision
from router.errors import GearshiftError


class Record(NamedTuple):
    """What became of a request; of what it carried, nothing.

    Attributes:
        model: of the store; empty where its sender made it up.
        ended_s: monotonic.
        total_s: from its last byte until then.
        decision: None where it was not answered.
        error: of what kind; its words may repeat what was sent.
        charged: in USD per million such requests.
        queue_ms, infer_ms, cached: as the answer has them.
        repeated: how many requests more ended like this one, and have no record of their own.
    """

    model: str
    rows: int
    constraints: Constraints
    origin: Origin
    ended_s: float
    total_s: float
    decision: Decision | None
    error: type[GearshiftError] | None
    charged: float = 0.0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    cached: bool = False
    repeated: int = 0


def of_answer(request: InferRequest, response: InferResponse, total_s: float) -> Record:
    """That of a request which was answered `total_s` after its last byte."""
    return Record(
        request.model,
        request.rows,
        request.constraints,
        request.origin,
        request.received_s + total_s,
        total_s,
        response.decision,
        None,
        response.cost_usd_per_million,
        response.queue_ms,
        response.infer_ms,
        response.cached,
    )


def of_failure(
    model: str,
    error: GearshiftError,
    now_s: float,
    total_s: float,
    origin: Origin,
    request: InferRequest | None,
    knows: Knows,
) -> Record:
    """That of a request which was not.

    Args:
        model: as its sender wrote it.
        now_s: monotonic.
        request: None where it could not be read.
    """
    model, rows, constraints = failed(model, request, knows)
    return Record(model, rows, constraints, origin, now_s, total_s, None, type(error))
