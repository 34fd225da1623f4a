"""The snapshot: what is true now, as plain values; made by whoever owns the queue and the lanes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Snapshot(NamedTuple):
    """What `route` may know about this moment, for one request.

    Attributes:
        wait_ms: predicted time until a lane is free for it, as everybody ahead is planned to be
            served.
        least_wait_ms: the same when everybody ahead is served by their fastest choice.
        price: what a ms of lane time is worth now; see `router.plan`.
        waiting: requests that wait, of all models: the more there are, the larger its batch.
        crowded: whether even the fastest choices leave hardly anybody time to spare.
        company: whether more of the kind is likely to come before the deadline.
        slowdown: by variant, how many times longer its batches took lately than its card says.
        tail: how many times the promised percentile of a batch has to be taken to hold.
        margin: how many times the predicted latency has to be taken to hold.
        caution: what is added to a wait before a request is let in, as a share of it.
        overhead_ms: what a request costs outside queue and inference: parsing, answering.
        least_overhead_ms: the same on a server with nothing else to do.
        ready: variants of this model that are loaded, warm and healthy.
    """

    wait_ms: float = 0.0
    least_wait_ms: float = 0.0
    price: float = 0.0
    waiting: int = 0
    crowded: bool = False
    company: bool = False
    slowdown: Mapping[str, float] = MappingProxyType({})
    tail: float = 1.0
    margin: float = 1.0
    caution: float = 0.0
    overhead_ms: float = 0.0
    least_overhead_ms: float = 0.0
    ready: frozenset[str] = frozenset()


def idle(ready: frozenset[str]) -> Snapshot:
    """A machine with nothing to do."""
    return Snapshot(ready=ready)
