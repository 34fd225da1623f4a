"""Predicted latency: the card, corrected by what was seen lately, behind what is queued now."""

from __future__ import annotations

from router.menu import Offer, batch_ms
from router.snapshot import Snapshot


def wait_ms(snapshot: Snapshot) -> float:
    """Time until a lane is free for a request that arrives now and queues behind everything.

    The backlog fills the lanes like water, the emptiest first: with lanes free in 0 and 10 ms, a
    backlog of 6 ms ends at 6 ms, one of 20 ms at 15 ms.
    """
    free = snapshot.lane_free_in_ms
    backlog = snapshot.backlog_ms
    if backlog <= 0:
        return min(free)
    level = 0.0
    filled = 0.0
    for lanes, start in enumerate(sorted(free)):
        # Pouring up to where the next lane joins takes this much; does the backlog reach it?
        needed = filled + lanes * (start - level)
        if needed >= backlog:
            return level + (backlog - filled) / lanes
        filled, level = needed, start
    return level + (backlog - filled) / len(free)


def latency_ms(offer: Offer, rows: int, snapshot: Snapshot, wait: float) -> float:
    """Predicted time to the answer: wait, the batch it would ride in, and the gateway's own cost.

    Args:
        wait: `wait_ms(snapshot)`, worked out once for all variants.
    """
    joined = rows + snapshot.queued_rows.get(offer.name, 0)
    if rows < joined:
        # It shares its batch with those queued for the same variant, as far as they fit.
        joined = max(rows, min(joined, offer.max_batch))
    batch = batch_ms(offer.promised_ms, joined) * snapshot.slowdown.get(offer.name, 1.0)
    return wait + batch + snapshot.overhead_ms
