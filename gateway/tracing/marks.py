"""What a traced request leaves behind on its way: moments, as monotonic seconds; 0 for none."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Run:
    """One batch that traced requests were in, on its lane; they share it.

    Attributes:
        rows, requests: how many it held in all.
        failed: how many of its requests got no answer from it.
        members: the traced ones of its requests.
        trace_id, span_id: of its own span; 0 until that is made.
        told: whether its span is being made.
    """

    model: str
    variant: str
    lane: int
    rows: int
    requests: int
    started_s: float
    members: list[Marks]
    finished_s: float = 0.0
    failed: int = 0
    trace_id: int = 0
    span_id: int = 0
    told: bool = False


@dataclass(slots=True, eq=False)
class Marks:
    """A traced request's passage.

    Attributes:
        route: the path's template, or the method's full name.
        trace_id, span_id: its own.
        parent_id: the caller's span; 0 where the trace begins here.
        state: the W3C's `tracestate` as it goes on from here.
        came_s: it began to arrive.
        received_s: its last byte.
        parsed_s: it was decoded.
        prepared_s: a processor had turned text or pictures into tensors.
        routed_s: it was decided and queued.
        runs: the batches it was in, in order; more than one where a lane or an engine failed.
    """

    route: str
    trace_id: int
    span_id: int
    parent_id: int
    state: str
    came_s: float
    received_s: float = 0.0
    parsed_s: float = 0.0
    prepared_s: float = 0.0
    routed_s: float = 0.0
    runs: list[Run] = field(default_factory=list)
