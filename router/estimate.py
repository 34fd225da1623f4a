"""Predicted latency: the card, corrected by what was seen lately, behind what is queued now."""

from __future__ import annotations

from router.menu import Offer, batch_ms
from router.snapshot import Snapshot


def wait_ms(lane_free_in_ms: tuple[float, ...], backlog_ms: float) -> float:
    """Time until a lane is free for what arrives now and queues behind `backlog_ms` of work.

    The backlog fills the lanes like water, the emptiest first: with lanes free in 0 and 10 ms, a
    backlog of 6 ms ends at 6 ms, one of 20 ms at 15 ms.
    """
    if backlog_ms <= 0:
        return min(lane_free_in_ms)
    level = filled = 0.0
    for lanes, start in enumerate(sorted(lane_free_in_ms)):
        # What it takes to fill the emptier lanes up to where the next one joins them.
        needed = filled + lanes * (start - level)
        if needed >= backlog_ms:
            return level + (backlog_ms - filled) / lanes
        filled, level = needed, start
    return level + (backlog_ms - filled) / len(lane_free_in_ms)


def latency_ms(offer: Offer, rows: int, snapshot: Snapshot, wait: float) -> float:
    """Predicted time to the answer: the wait, the batch it rides in, and the gateway's own cost.

    Args:
        wait: `wait_ms` of the whole backlog, worked out once for all variants.
    """
    slowdown = snapshot.slowdown.get(offer.name, 1.0)
    queued = snapshot.queued_rows.get(offer.name, 0)
    if queued:
        # It joins the last batch of those queued for the same variant where it fits, and waits
        # for the batches before; their time is in the backlog as one, so it is counted anew.
        last = (queued + rows) % offer.max_batch or offer.max_batch
        last = max(last, rows)
        ahead = batch_ms(offer.typical_ms, queued + rows - last)
        own = batch_ms(offer.typical_ms, queued)
        backlog = snapshot.backlog_ms + (ahead - own) * slowdown
        wait, rows = wait_ms(snapshot.lane_free_in_ms, backlog), last
    return wait + batch_ms(offer.promised_ms, rows) * slowdown + snapshot.overhead_ms
