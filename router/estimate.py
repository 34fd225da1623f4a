"""Predicted latency: the card, corrected by what was seen lately, behind what is queued now."""

from __future__ import annotations

from collections.abc import Sequence

from router.menu import Offer, batch_ms
from router.snapshot import Snapshot


def wait_ms(lane_free_in_ms: Sequence[float], ahead_ms: float) -> float:
    """Time until a lane is free for what queues behind `ahead_ms` of lane time.

    The work fills the lanes like water, the emptiest first: with lanes free in 0 and 10 ms, 6 ms of
    work end at 6 ms, 20 ms at 15 ms.
    """
    if ahead_ms <= 0:
        return min(lane_free_in_ms)
    level = filled = 0.0
    for lanes, start in enumerate(sorted(lane_free_in_ms)):
        # What it takes to fill the emptier lanes up to where the next one joins them.
        needed = filled + lanes * (start - level)
        if needed >= ahead_ms:
            return level + (ahead_ms - filled) / lanes
        filled, level = needed, start
    return level + (ahead_ms - filled) / len(lane_free_in_ms)


def latency_ms(
    offer: Offer, rows: int, snapshot: Snapshot, wait: float, limit_ms: float | None = None
) -> float:
    """Predicted time to the answer: the wait, the batch it rides in, and the gateway's own cost.

    Args:
        wait: `snapshot.wait_ms`, or the least.
        limit_ms: the deadline: nobody joins a batch that would take it past that. It is passed over
            while lane time is scarce, as a lane that runs small batches serves fewer.
    """
    table = offer.promised_ms
    slowdown = snapshot.slowdown.get(offer.name, 1.0) * snapshot.tail
    own = table[rows] if rows < len(table) else batch_ms(table, rows)
    alone = wait + own * slowdown + snapshot.overhead_ms
    if not snapshot.ahead_rows:
        return alone
    # It rides with others, in a batch of at most the size that suits the variant.
    ride = max(rows, min(rows + snapshot.ahead_rows, offer.efficient_rows))
    riding = wait + batch_ms(table, ride) * slowdown + snapshot.overhead_ms
    if limit_ms is None or snapshot.price > 0:
        return riding
    return min(riding, max(alone, limit_ms))
