"""The plan: what a millisecond of lane time is worth now.

Each request wants its best variant; together they may want more lane time than there is until
they are due. The plan finds the lowest price of lane time at which everything that waits, and
what is likely to arrive meanwhile, still makes its deadline when every request chooses by its own
`Tariff`. It is the rule "Optimal Available" for running jobs with deadlines at the slowest
sufficient speed (Yao, Demers & Shenker 1995; Bansal, Kimbrough & Pruhs 2007), with accuracy in
the place of energy and a price in the place of a speed, so that requests with different floors,
caps and objectives can share it: each gives way where it loses least.

By the order of urgency the work due by any moment is a prefix of the queue, so the test is that
each prefix fits into what the lanes can do until it is due. A long queue is judged by a sample of
its prefixes, which makes the plan cost the same for 100 requests and for 10,000.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul, sub
from typing import NamedTuple

from router.choices import Choices
from router.pace import NOTHING, Pace, Tariff
from router.queue import Expected, Waiting

# Prefixes of a long queue that are looked at.
SAMPLES = 32
# Every so many of them are also judged with what is likely to come before they are due.
VIEWS = 8


class Plan(NamedTuple):
    """A price, and what follows from it.

    Attributes:
        price: worth of a ms of lane time.
        next_price: the one below it, at which somebody would be late; `price` when there is none.
        spare_ms: lane time that is left, at the tightest prefix, at `price`; negative when
            somebody will be late at any price.
        due_s: when the sampled prefixes are due.
        planned_ms, least_ms: lane time of each prefix at `price`, and by everybody's fastest.
    """

    price: float
    next_price: float
    spare_ms: float
    due_s: Sequence[float]
    planned_ms: Sequence[float]
    least_ms: Sequence[float]

    @property
    def feasible(self) -> bool:
        """Whether everybody makes the deadline at `price`."""
        return self.spare_ms >= 0


def plan(
    queue: Sequence[Waiting],
    expected: Sequence[Expected],
    now_s: float,
    lane_free_in_ms: Sequence[float],
    paces: Mapping[str, Pace],
    reserve_ms: float = 0.0,
    share: float = 1.0,
) -> Plan:
    """The plan for what waits in `queue`, sorted by urgency.

    Args:
        expected: what keeps arriving.
        lane_free_in_ms: for each lane, time until its running batch ends; 0 when idle.
        paces: by model; requests of a model that is absent take no time.
        reserve_ms: kept free before each deadline.
        share: of the lanes' time, what these requests may take.
    """
    sample, rows = _sample(queue)
    kinds = [waiting.choices for waiting in sample]
    slack = [(waiting.due_s - now_s) * 1000 - reserve_ms for waiting in sample]
    room = _room(slack, lane_free_in_ms, share)
    views = _views(slack, expected, reserve_ms)
    room_ahead = _room([at for at, _ in views], lane_free_in_ms, share)
    # Rows of each kind that will have come, and be due, by each point ahead.
    coming = [
        [kind.rows_per_ms * max(0.0, at - reserve_ms - kind.within_ms) for kind in expected]
        for at, _ in views
    ]
    tariffs = {
        choices: paces[choices.model].tariff(choices) if choices.model in paces else NOTHING
        for choices in {*kinds, *[kind.choices for kind in expected]}
    }

    least = _least(tariffs)
    near = views[-1][1] if views else 0
    beyond = _beyond(slack, expected, kinds, rows, least, near, lane_free_in_ms, share, reserve_ms)

    def work(price: float) -> tuple[list[float], float]:
        """Lane time of each prefix at `price`, and what is left at the tightest."""
        ms = {
            choices: tariff.row_ms[tariff.at(price)] if tariff.offers else 0.0
            for choices, tariff in tariffs.items()
        }
        prefixes = list(accumulate([ms[kind] * n for kind, n in zip(kinds, rows, strict=True)]))
        spare = min(map(sub, room, prefixes), default=math.inf)
        takes = [ms[kind.choices] for kind in expected]
        for have, (_, queued), arriving in zip(room_ahead, views, coming, strict=True):
            need = sum(map(mul, takes, arriving)) + (prefixes[queued - 1] if queued else 0.0)
            spare = min(spare, have - need)
        return prefixes, min(spare, beyond - (prefixes[near - 1] if near else 0.0))

    prices = sorted({0.0, *[price for tariff in tariffs.values() for price in tariff.prices]})
    low, high = 0, len(prices) - 1
    while low < high:
        middle = (low + high) // 2
        if work(prices[middle])[1] >= 0:
            high = middle
        else:
            low = middle + 1
    price = prices[low]
    planned_ms, spare_ms = work(price)
    least_ms = planned_ms if low == len(prices) - 1 else work(prices[-1])[0]
    return Plan(
        price,
        prices[max(0, low - 1)],
        spare_ms,
        [waiting.due_s for waiting in sample],
        planned_ms,
        least_ms,
    )


def _sample(queue: Sequence[Waiting]) -> tuple[list[Waiting], list[int]]:
    """The ends of the prefixes to look at, and the rows that each adds, taking it for its like."""
    count = len(queue)
    step = -(-count // SAMPLES) or 1
    sample = list(queue[step - 1 :: step])
    rows = [waiting.rows * step for waiting in sample]
    rest = count % step
    if rest:
        sample.append(queue[-1])
        rows.append(queue[-1].rows * rest)
    return sample, rows


def _views(
    slack: Sequence[float], expected: Sequence[Expected], reserve_ms: float
) -> list[tuple[float, int]]:
    """Where to look for arrivals: times ahead, each with the prefixes that are due by then.

    At some of the prefixes, since what comes may be due sooner than what waits; and twice a usual
    deadline ahead, when what comes now has been followed by as much again. Looking further would
    forbid what the time until the deadlines makes up for; looking no further than what waits is
    to be surprised by what comes. The usual deadline is the harmonic mean, so that the few who can
    wait long do not stretch it.
    """
    rate = sum([kind.rows_per_ms for kind in expected])
    if not rate:
        return []
    count = len(slack)
    views = [(slack[at], at + 1) for at in range(VIEWS - 1, count, VIEWS)]
    usual_ms = rate / sum([kind.rows_per_ms / kind.within_ms for kind in expected])
    ahead_ms = 2 * usual_ms - reserve_ms
    return [*views, (ahead_ms, bisect_right(slack, ahead_ms))]


def _least(tariffs: Mapping[Choices, Tariff]) -> dict[Choices, float]:
    """Lane time of a row by the fastest of each kind's choices."""
    return {
        choices: tariff.row_ms[-1] if tariff.offers else 0.0 for choices, tariff in tariffs.items()
    }


def _beyond(
    slack: Sequence[float],
    expected: Sequence[Expected],
    kinds: Sequence[Choices],
    rows: Sequence[int],
    least: Mapping[Choices, float],
    near: int,
    lane_free_in_ms: Sequence[float],
    share: float,
    reserve_ms: float,
) -> float:
    """Lane time left for the first `near` prefixes if all that is due later takes its least.

    What waits long, or comes later, must not be left more than can be made up for.
    """
    later = [0.0, *accumulate([least[k] * n for k, n in zip(kinds[near:], rows[near:], strict=True)])]
    spare = math.inf
    for at in {2 * kind.within_ms - reserve_ms for kind in expected}:
        (room,) = _room([at], lane_free_in_ms, share)
        queued = later[max(0, bisect_right(slack, at) - near)]
        coming = sum(
            [
                least[kind.choices] * kind.rows_per_ms * max(0.0, at - reserve_ms - kind.within_ms)
                for kind in expected
            ]
        )
        spare = min(spare, room - queued - coming)
    return spare


def _room(slack: Sequence[float], lane_free_in_ms: Sequence[float], share: float) -> list[float]:
    """Lane time that there is within each slack."""
    starts = sorted(lane_free_in_ms)
    sums = [0.0, *accumulate(starts)]
    room = []
    for ms in slack:
        lanes = bisect_left(starts, ms)
        room.append((lanes * ms - sums[lanes]) * share)
    return room
