"""Every request goes, when it arrives, to the choice that is predicted to answer it soonest.

What a load balancer does that takes each variant for a server with a queue of its own: the wait
for a lane, what already waits for that variant, and the batch that the request will ride in.

Known faults, kept because they are what this rule is known for: accuracy does not enter, so it
gives up accuracy even on an idle machine; it floods the fastest variant until its queue is as long
as the next one's batch; and it takes the lanes, which all variants share, for each variant's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.batching import batch, ready
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.estimate import wait_ms
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting


class LeastLatency:
    """The soonest that is allowed."""

    late = False
    admits_all = True

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """The choice with the least predicted latency; of equals, the first."""
        return min(
            ready(choices, scene.pace),
            key=lambda offer: predicted_ms(offer, scene),
            default=None,
        )

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """See `router.batching.batch`."""
        return batch(queue, moment)


def predicted_ms(offer: Offer, scene: Scene) -> float:
    """Time to an answer by `offer`: full batches of its own queue go first."""
    queued = scene.queued_rows.get(offer.name, 0)
    ahead, riding = divmod(queued, scene.max_batch)
    ahead_ms = ahead * scene.pace.promised_ms(offer, scene.max_batch)
    own_ms = scene.pace.promised_ms(offer, riding + scene.rows)
    return wait_ms(scene.lane_free_in_ms, ahead_ms) + own_ms + scene.overhead_ms


POLICY = LeastLatency()
