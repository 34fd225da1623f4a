"""Predicted latency: the card, corrected by what was seen lately, behind what is queued now."""

from __future__ import annotations

from collections.abc import Sequence

from router.dispatch import BRIEF
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
        limit_ms: the deadline. While lane time is plenty, nobody joins a batch that would take it
            past that. No batch takes longer than dispatch lets one be, a share of the deadline.
            Where not everybody can be served, both are passed over: a lane that runs small batches
            serves fewer, so who has no time for a large one is told to come again.
    """
    table = offer.promised_ms
    slowdown = snapshot.slowdown.get(offer.name, 1.0) * snapshot.tail
    own = table[rows] if rows < len(table) else batch_ms(table, rows)
    alone = wait + own * slowdown + snapshot.overhead_ms
    if not snapshot.waiting:
        return alone
    # It rides with others, in a batch of at most the size that suits the variant.
    ride = max(rows, min(rows + snapshot.waiting, offer.efficient_rows))
    ride_ms = batch_ms(table, ride) * slowdown
    if limit_ms is not None and not snapshot.crowded:
        ride_ms = min(ride_ms, max(own * slowdown, BRIEF * limit_ms))
    riding = wait + ride_ms + snapshot.overhead_ms
    if limit_ms is None or snapshot.price > 0:
        return riding
    return min(riding, max(alone, limit_ms))
