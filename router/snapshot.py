"""The snapshot: what is true now, as plain values; made by whoever owns the queue and the lanes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `route` may know about this moment.

    Attributes:
        lane_free_in_ms: for each lane, predicted time until its running batch ends; 0 when idle.
        backlog_ms: predicted lane-time of what is queued ahead, of every model, at the median: each
            variant's rows in as few batches as they fit.
        queued_rows: rows queued ahead for this model, by variant.
        slowdown: by variant, how many times longer its batches took lately than its card says.
        overhead_ms: what a request costs outside queue and inference: parsing, answering.
        least_overhead_ms: the same on a server with nothing else to do.
        ready: variants of this model that are loaded, warm and healthy.
    """

    lane_free_in_ms: tuple[float, ...]
    backlog_ms: float = 0.0
    queued_rows: Mapping[str, int] = field(default_factory=dict)
    slowdown: Mapping[str, float] = field(default_factory=dict)
    overhead_ms: float = 0.0
    least_overhead_ms: float = 0.0
    ready: frozenset[str] = frozenset()


def idle(ready: frozenset[str], lanes: int = 1) -> Snapshot:
    """A machine with nothing to do."""
    return Snapshot(lane_free_in_ms=(0.0,) * lanes, ready=ready)
