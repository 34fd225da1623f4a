"""dispatch(): what a lane that has come free should run, decided now that the slack is known.

The queue is in order of urgency. Its head, the request with the least time left, decides: it takes
the best of its choices that still makes its deadline. Others of the same model join the batch
where the same variant is also their own best choice and the longer batch still makes every
member's deadline, so nobody is late, or is answered less well, for company's sake. A request that
cannot make its deadline by any choice, even at the median, is not run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from router.menu import Menu, Offer, batch_ms

# How far behind the head the batch is filled from. Further back lie requests with more time to
# spare; looking at all of a long queue would cost more than the batch saves.
REACH = 256


@dataclass(frozen=True, slots=True)
class Waiting:
    """One queued request.

    Attributes:
        ticket: its number; earlier ones are smaller.
        model: whose variants its choices are.
        rows: rows of its tensors.
        due_s: monotonic time by which it is wanted; orders the queue. A request without a
            deadline has one all the same, some patience after its arrival, so that it does not
            wait for ever behind those that have one.
        deadline_s: monotonic time by which its answer must be out; infinite without one.
        soft: whether it is still wanted after its deadline.
        choices: variants that may answer, best first: the one that was routed to, then those that
            are faster.
    """

    ticket: int
    model: str
    rows: int
    due_s: float
    deadline_s: float
    choices: tuple[str, ...]
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """One batch for a lane: run `members` on `variant`; `promised_ms` is how long it should take.

    `members` is empty, and `variant` too, when there is nothing to run. `expired` can no longer
    make their deadline and leave the queue unrun.
    """

    model: str
    variant: str
    members: tuple[Waiting, ...]
    expired: tuple[Waiting, ...]
    promised_ms: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one model's variants really run now.

    Attributes:
        menu: the model's variants.
        slowdown: by variant, how many times longer its batches took lately than its card says.
        ready: variants that are loaded, warm and healthy.
    """

    menu: Menu
    slowdown: Mapping[str, float]
    ready: frozenset[str]

    def promised_ms(self, offer: Offer, rows: int) -> float:
        """Time of a batch at the promised percentile."""
        return batch_ms(offer.promised_ms, rows) * self.slowdown.get(offer.name, 1.0)

    def typical_ms(self, offer: Offer, rows: int) -> float:
        """Time of a batch at the median."""
        return batch_ms(offer.typical_ms, rows) * self.slowdown.get(offer.name, 1.0)


def order(waiting: Waiting) -> tuple[float, int]:
    """The key by which the queue is kept: the most urgent first, then the earliest."""
    return waiting.due_s, waiting.ticket


def dispatch(
    queue: Sequence[Waiting],
    now_s: float,
    paces: Mapping[str, Pace],
    *,
    max_batch: int,
    overhead_ms: float,
) -> Assignment:
    """The batch for a lane that is free now.

    Args:
        queue: every queued request, sorted by `order`.
        paces: by model; a request of a model that is absent expires.
        max_batch: rows of a batch, at most; a single request may have more and runs alone.
        overhead_ms: what it takes to bring an answer from the lane to its caller.
    """
    expired: list[Waiting] = []
    reachable = iter(queue[: REACH + max_batch])
    for head in reachable:
        pace = paces.get(head.model)
        offer = None if pace is None else choose(head, now_s, pace, overhead_ms)
        if pace is None or offer is None:
            expired.append(head)
            continue
        members, promised_ms = _fill(head, offer, reachable, now_s, pace, max_batch, overhead_ms)
        return Assignment(head.model, offer.name, tuple(members), tuple(expired), promised_ms)
    return Assignment("", "", (), tuple(expired), 0.0)


def choose(waiting: Waiting, now_s: float, pace: Pace, overhead_ms: float) -> Offer | None:
    """The best choice that still makes the deadline; None when none can.

    The promised percentile decides. When no choice makes it at that percentile, the fastest runs
    if it makes it at the median: late odds are better than none, and it is the caller's time.
    """
    slack_ms = _slack_ms(waiting, now_s, overhead_ms)
    by_name, ready = pace.menu.by_name, pace.ready
    offers = [by_name[name] for name in waiting.choices if name in ready]
    for offer in offers:
        if pace.promised_ms(offer, waiting.rows) <= slack_ms:
            return offer
    fastest = min(offers, key=lambda offer: pace.typical_ms(offer, waiting.rows), default=None)
    if fastest is None or waiting.soft or pace.typical_ms(fastest, waiting.rows) <= slack_ms:
        return fastest
    return None


def _fill(
    head: Waiting,
    offer: Offer,
    others: Iterable[Waiting],
    now_s: float,
    pace: Pace,
    max_batch: int,
    overhead_ms: float,
) -> tuple[list[Waiting], float]:
    members, rows = [head], head.rows
    promised_ms = pace.promised_ms(offer, rows)
    # A head that only makes it at the median has no time to spare for company.
    slack_ms = max(_slack_ms(head, now_s, overhead_ms), promised_ms)
    for other in others:
        if rows >= max_batch:
            break
        if other.model != head.model or rows + other.rows > max_batch:
            continue
        if offer.name not in other.choices:
            continue
        longer_ms = pace.promised_ms(offer, rows + other.rows)
        least_ms = min(slack_ms, _slack_ms(other, now_s, overhead_ms))
        if longer_ms > least_ms:
            continue
        # Its first choice makes its deadline, as the longer batch does; no need to ask.
        first = other.choices[0] == offer.name
        if not first and choose(other, now_s, pace, overhead_ms) is not offer:
            continue
        members.append(other)
        rows, promised_ms, slack_ms = rows + other.rows, longer_ms, least_ms
    return members, promised_ms


def _slack_ms(waiting: Waiting, now_s: float, overhead_ms: float) -> float:
    if waiting.deadline_s == math.inf:
        return math.inf
    return (waiting.deadline_s - now_s) * 1000 - overhead_ms
