"""Batching: the batch for a free lane where each request was given its variant when it arrived.

Shared by the policies that decide at arrival. The most urgent request says which variant runs; the
others that were given the same one join it in the order of urgency, as many as leave every
member's deadline whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.pace import Pace
from router.queue import Waiting


def batch(queue: Sequence[Waiting], moment: Moment) -> Assignment:
    """The batch of the most urgent request that its variant can still answer in time.

    Those more urgent that it cannot, even at the median, expire; so does one whose variant is not
    ready any more.
    """
    expired: list[Waiting] = []
    for at, head in enumerate(queue):
        offer = offer_of(head, moment)
        if offer is None or hopeless(head, offer, moment):
            expired.append(head)
            continue
        members, promised_ms = fill(
            head, offer, queue[at + 1 :], moment, moment.max_batch, routed_alike(head)
        )
        return Assignment(
            head.choices.model, offer.name, tuple(members), tuple(expired), promised_ms
        )
    return Assignment(expired=tuple(expired))


def fill(
    head: Waiting,
    offer: Offer,
    others: Iterable[Waiting],
    moment: Moment,
    room: int,
    alike: Callable[[Waiting], bool],
) -> tuple[list[Waiting], float]:
    """A batch on `offer`: the head and those of `others` that are `alike`; and what it takes, ms.

    Args:
        others: in the order of urgency.
        room: rows, at most; a head that has more runs alone.
    """
    pace = moment.paces[head.choices.model]
    members, rows = [head], head.rows
    promised_ms = pace.promised_ms(offer, rows)
    limit_ms = _limit_ms(head, offer, moment)
    for other in others:
        if rows >= room:
            break
        if rows + other.rows > room or not alike(other):
            continue
        longer_ms = pace.promised_ms(offer, rows + other.rows)
        if longer_ms > limit_ms:
            break
        least_ms = min(limit_ms, _limit_ms(other, offer, moment))
        if longer_ms <= least_ms:
            members.append(other)
            rows, promised_ms, limit_ms = rows + other.rows, longer_ms, least_ms
    return members, promised_ms


def routed_alike(head: Waiting) -> Callable[[Waiting], bool]:
    """Whether another request was given the same build of the same variant of the same model."""
    routed = head.routed
    build = next((o for o in head.choices.offers if o.name == routed), None)
    return lambda other: other.routed == routed and build in other.choices.offers


def offer_of(waiting: Waiting, moment: Moment) -> Offer | None:
    """The variant that it was given, when that is ready."""
    pace = moment.paces.get(waiting.choices.model)
    if pace is None or waiting.routed not in pace.ready:
        return None
    return next((o for o in waiting.choices.offers if o.name == waiting.routed), None)


def hopeless(waiting: Waiting, offer: Offer, moment: Moment) -> bool:
    """Whether `offer` is too slow even at the median, and a late answer is not wanted."""
    if waiting.soft:
        return False
    pace = moment.paces[waiting.choices.model]
    return pace.typical_ms(offer, waiting.rows) > moment.slack_ms(waiting)


def ready(choices: Choices, pace: Pace) -> list[Offer]:
    """The choices that can be had now, in their order."""
    return [offer for offer in choices.offers if offer.name in pace.ready]


def most_accurate(offers: Iterable[Offer]) -> Offer | None:
    """The most accurate; of equals, the one with the least lane time."""
    return max(offers, key=lambda offer: (offer.accuracy, -offer.row_ms), default=None)


def fastest(offers: Iterable[Offer], pace: Pace, rows: int) -> Offer | None:
    """The one whose batch of `rows` takes least; of equals, the most accurate."""
    return min(
        offers, key=lambda offer: (pace.typical_ms(offer, rows), -offer.accuracy), default=None
    )


def _limit_ms(waiting: Waiting, offer: Offer, moment: Moment) -> float:
    """How long a batch with this member may take.

    One that only makes it at the median has no time to spare for company; one that is late already
    and still wanted has all the time there is.
    """
    slack = moment.slack_ms(waiting)
    alone_ms = moment.paces[waiting.choices.model].promised_ms(offer, waiting.rows)
    if slack >= alone_ms:
        return slack
    return math.inf if waiting.soft else alone_ms
