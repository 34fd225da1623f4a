"""What passes inside the process: numpy arrays and plain values, no framework's types."""

from __future__ import annotations

from typing import NamedTuple

from gateway.engines import Tensor
from gateway.tracing.marks import Marks
from router.constraints import Constraints
from router.decision import Decision


class Trace(NamedTuple):
    """A request's span in a trace, as the W3C's Trace Context names it.

    Attributes:
        trace_id, span_id: 32 and 16 lower-case hexadecimal digits.
        sampled: whether the trace is recorded.
    """

    trace_id: str
    span_id: str
    sampled: bool


class Origin(NamedTuple):
    """Whom a request is from, and how it came.

    Attributes:
        id: what its caller or this server calls it; empty where nobody asks.
        tenant: the class of tenants that its key belongs to; "open" without a key.
        key: the name of its key; empty without one.
        protocol: "rest" or "grpc".
        trace: this request's span where it is traced here; else its caller's, if one was named.
        marks: where it is on its way, while its trace is recorded.
    """

    id: str = ""
    tenant: str = "open"
    key: str = ""
    protocol: str = "rest"
    trace: Trace | None = None
    marks: Marks | None = None


UNTOLD = Origin()
"""That of a request of which nothing was asked."""


class InferRequest(NamedTuple):
    """One request, parsed and validated against the model's inputs.

    Attributes:
        inputs: every input of the model by name, each (rows, ...), of the card's datatype.
        received_s: monotonic time of the request's last byte; the deadline counts from it.
    """

    model: str
    inputs: dict[str, Tensor]
    rows: int
    constraints: Constraints
    received_s: float
    origin: Origin = UNTOLD


class Told(NamedTuple):
    """What was foreseen of a request's latency when it was routed.

    Attributes:
        queued: whether it had to wait for a lane.
        estimate_ms: the prediction, before what was learnt of how far such predictions err.
        bound_ms: what its caller was told.
    """

    queued: bool
    estimate_ms: float
    bound_ms: float


class InferResponse(NamedTuple):
    """One answer.

    Attributes:
        outputs: every output of the model by name, each (rows, ...).
        decision: the decision as it was kept at dispatch; `decision.variant` is what ran.
        cost_usd_per_million: what this request is charged, as USD per million such requests.
        queue_ms, infer_ms: time waited for a lane, and time of the batch on it.
        deadline_s: monotonic time after which the answer must not be sent; infinite without one.
        told: what was foreseen of its latency.
        reference_usd_per_million: what it would have been charged on the reference variant.
        cached: whether it is an earlier answer to the same inputs, which no lane ran for.
    """

    outputs: dict[str, Tensor]
    decision: Decision
    cost_usd_per_million: float
    queue_ms: float
    infer_ms: float
    deadline_s: float
    told: Told
    reference_usd_per_million: float = 0.0
    cached: bool = False
