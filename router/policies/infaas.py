"""INFaaS: the cheapest variant that meets what the request demands and has room for it.

Romero, Li, Yadwadkar & Kozyrakis, "INFaaS: Automated Model-less Inference Serving", USENIX ATC
2021, section on selecting and scaling variants. A request states an accuracy and a latency; when
it arrives, the variants that meet both by their profiles are looked through for one that is loaded
and not overloaded, so that load goes where instances run already; the scaling behind it keeps the
cost of what runs least. Latency is profiled as a line in the batch size.

Simplifications. Every variant is loaded here and the lanes are fixed, so nothing is scaled, loaded
or moved between machines, and selection aims at the least cost itself. Overloaded is a variant
that by its line, behind all that is queued, would miss the deadline. Of equal cost, the variant
with more load goes first. When every variant is overloaded, the fastest takes the request.

Where a request states no accuracy, the cheapest variant answers it even when more would fit: INFaaS
minimises cost for what was demanded and does not look for more.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.batching import batch, fastest, ready
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.estimate import wait_ms
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting


class INFaaS:
    """The cheapest that is allowed and has room."""

    late = False
    admits_all = True

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """The cheapest choice with room; else the fastest."""
        offers = ready(choices, scene.pace)
        queued_ms = sum(
            line_ms(offer, scene, scene.queued_rows[offer.name])
            for offer in choices.menu.offers
            if scene.queued_rows.get(offer.name)
        )
        wait = wait_ms(scene.lane_free_in_ms, queued_ms) + scene.overhead_ms
        with_room = [
            offer for offer in offers if wait + line_ms(offer, scene, scene.rows) <= scene.within_ms
        ]
        if not with_room:
            return fastest(offers, scene.pace, scene.rows)
        return min(
            with_room,
            key=lambda offer: (
                offer.cost_usd_per_million(scene.rows),
                -scene.queued_rows.get(offer.name, 0),
            ),
        )

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """See `router.batching.batch`."""
        return batch(queue, moment)


def line_ms(offer: Offer, scene: Scene, rows: int) -> float:
    """Time of `rows` rows on the line through a batch of one and the largest."""
    one_ms = scene.pace.promised_ms(offer, 1)
    if scene.max_batch == 1:
        return one_ms * rows
    most_ms = scene.pace.promised_ms(offer, scene.max_batch)
    return one_ms + (most_ms - one_ms) / (scene.max_batch - 1) * (rows - 1)


POLICY = INFaaS()
