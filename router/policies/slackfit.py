"""SlackFit: the slack of the most urgent request says which variant runs, in how large a batch.

Khare, Garg, Kalra, Grandhi, Stoica & Tumanov, "SuperServe: Fine-Grained Inference Serving for
Unpredictable Workloads", NSDI 2025, section on SlackFit. Offline, all pairs of a batch size and a
variant on the accuracy-latency frontier are put into buckets by how long they take, buckets being
equally wide from the shortest to the longest. Online, when a worker is free, the slack of the most
urgent request picks the bucket of the longest times that still fit, and in it the pair with the
largest batch: that is where accuracy gives way. Queues that grow leave less slack, and less slack
means faster variants, which is all the adaptation there is.

Here the pairs are those of the request's own choices. The number of buckets is ours: of nine from
3 to 512 that were tried on one table of variants, at four loads of Poisson and of gamma arrivals,
one seed each, the one with the best mean accuracy, which favours SlackFit. A batch has fewer rows
than the pair says when fewer wait; those join, in the order of urgency, whose choices hold the
variant and whose deadlines the batch leaves whole. A request that no choice answers in time even at
the median is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from router.batching import fastest, fill, hopeless, ready
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.pace import Pace
from router.policies import Scene
from router.queue import Waiting

BUCKETS = 8

Pair = tuple[float, int, Offer]
"""Time at the promised percentile, rows, variant."""


class SlackFit:
    """As slow and accurate as the slack allows."""

    late = True
    admits_all = True

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """The first choice that is ready: what runs is decided when a lane comes free."""
        return next(iter(ready(choices, scene.pace)), None)

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """The batch that the slack of the most urgent request picks."""
        expired: list[Waiting] = []
        for at, head in enumerate(queue):
            pace = moment.paces.get(head.choices.model)
            quickest = fastest(ready(head.choices, pace), pace, head.rows) if pace else None
            if pace is None or quickest is None or hopeless(head, quickest, moment):
                expired.append(head)
                continue
            offer, room = pick(head.choices, pace, moment.slack_ms(head), head.rows, moment)
            if offer is None:  # at the promised percentile none; at the median this one
                offer, room = quickest, head.rows

            def alike(other: Waiting, offer: Offer = offer) -> bool:
                return offer in other.choices.offers

            members, promised_ms = fill(head, offer, queue[at + 1 :], moment, room, alike)
            return Assignment(
                head.choices.model, offer.name, tuple(members), tuple(expired), promised_ms
            )
        return Assignment(expired=tuple(expired))


def pick(
    choices: Choices, pace: Pace, slack: float, rows: int, moment: Moment
) -> tuple[Offer | None, int]:
    """The variant and the rows of the pair for this slack; None when no pair fits it.

    Args:
        rows: of the request, which the pair must have room for.
    """
    if rows > moment.max_batch:  # it runs alone
        alone = [(pace.promised_ms(o, rows), o.accuracy, o) for o in ready(choices, pace)]
        fitting = [one for one in alone if one[0] <= slack]
        return (max(fitting, key=lambda one: one[:2])[2] if fitting else None), rows
    table = buckets(choices, tuple(pace.slowdown.items()), pace.ready, pace.tail, moment.max_batch)
    for bucket in reversed(table):
        if bucket and bucket[0][0] <= slack:
            fitting_pairs = [pair for pair in bucket if pair[0] <= slack and pair[1] >= rows]
            if fitting_pairs:
                best = max(fitting_pairs, key=lambda pair: (pair[1], pair[2].accuracy))
                return best[2], best[1]
    return None, rows


@lru_cache(maxsize=1024)
def buckets(
    choices: Choices,
    slowdown: tuple[tuple[str, float], ...],
    loaded: frozenset[str],
    tail: float,
    max_batch: int,
) -> tuple[tuple[Pair, ...], ...]:
    """The offline part: pairs of the frontier's variants in buckets, each by rising time."""
    pace = Pace(choices.menu, dict(slowdown), loaded, tail)
    pairs = sorted(
        [
            (pace.promised_ms(offer, rows), rows, offer)
            for offer in _frontier(ready(choices, pace), pace)
            for rows in range(1, max_batch + 1)
        ],
        key=lambda pair: pair[:2],
    )
    low, high = pairs[0][0], pairs[-1][0]
    width = (high - low) / BUCKETS or math.inf
    table: list[list[Pair]] = [[] for _ in range(BUCKETS)]
    for pair in pairs:
        table[min(BUCKETS - 1, int((pair[0] - low) / width))].append(pair)
    return tuple(tuple(bucket) for bucket in table)


def _frontier(offers: Sequence[Offer], pace: Pace) -> list[Offer]:
    """Without those that another is as accurate as and faster than."""
    ordered = sorted(offers, key=lambda offer: (-offer.accuracy, pace.promised_ms(offer, 1)))
    kept: list[Offer] = []
    for offer in ordered:
        if not kept or pace.promised_ms(offer, 1) < pace.promised_ms(kept[-1], 1):
            kept.append(offer)
    return kept


POLICY = SlackFit()
