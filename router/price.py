"""The price: the lowest worth of a ms of lane time at which some work makes its deadlines."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import mul, sub
from typing import NamedTuple

from router.ahead import left_beyond, views_of
from router.choices import Choices
from router.pace import NOTHING, Pace, Tariff
from router.patience import brief, spares, starts
from router.queue import Expected, Waiting


class Solved(NamedTuple):
    """A price, and what follows from it; see `router.plan.Plan` for the words."""

    price: float
    spare_ms: float
    crowded: bool
    each_ms: list[float]
    least_ms: list[float]


class Lanes:
    """The lanes' time, from what each runs now."""

    def __init__(self, free_in_ms: Sequence[float]) -> None:
        self.count = len(free_in_ms)
        self.starts = sorted(free_in_ms)
        self._sums = [0.0, *accumulate(self.starts)]

    def room(self, within_ms: Sequence[float], share: float) -> list[float]:
        """Lane time there is, in all, within each of these times."""
        starts, sums = self.starts, self._sums
        room = []
        for ms in within_ms:
            lanes = bisect_left(starts, ms)
            room.append((lanes * ms - sums[lanes]) * share)
        return room


def lowest_price(
    sample: Sequence[Waiting],
    rows: Sequence[int],
    expected: Sequence[Expected],
    now_s: float,
    lanes: Lanes,
    paces: Mapping[str, Pace],
    reserve_ms: float,
    share: float,
    hint: float,
    fixed: Mapping[str, float],
) -> Solved:
    """The lowest price at which these make their deadlines on their share of the lanes.

    Models in `fixed` have that price whatever the others pay.
    """
    kinds = [waiting.choices for waiting in sample]
    slack = [(waiting.due_s - now_s) * 1000 - reserve_ms for waiting in sample]
    room = lanes.room(slack, share)
    views = views_of(slack, expected, reserve_ms)
    room_ahead = lanes.room([at for at, _ in views], share)
    # Rows of each kind that will have come, and be due, by each point ahead.
    coming = [
        [kind.rows_per_ms * max(0.0, at - reserve_ms - kind.within_ms) for kind in expected]
        for at, _ in views
    ]
    tariffs = {
        choices: paces[choices.model].tariff(choices) if choices.model in paces else NOTHING
        for choices in {*kinds, *[kind.choices for kind in expected]}
    }
    least = {
        choices: tariff.row_ms[-1] if tariff.offers else 0.0 for choices, tariff in tariffs.items()
    }
    least_ms = [least[kind] * n for kind, n in zip(kinds, rows, strict=True)]
    # One whose own deadline leaves no time for its best takes a faster one at any price, and is no
    # reason why the others should.
    roomy_ms = {
        choices: paces[choices.model].promised_ms(tariff.offers[0], 1) if tariff.offers else 0.0
        for choices, tariff in tariffs.items()
    }
    until_ms = [(waiting.deadline_s - now_s) * 1000 - reserve_ms for waiting in sample]
    most_ms = [
        math.inf
        if ms >= roomy_ms[kind] * waiting.rows
        else _most_ms(tariffs[kind], paces, kind, ms, waiting.rows) * n
        for kind, ms, waiting, n in zip(kinds, until_ms, sample, rows, strict=True)
    ]
    patient = [waiting.deadline_s > waiting.due_s for waiting in sample]
    if any(patient) and not spares(sample, patient, tariffs, expected, lanes.starts, share):
        patient = [False] * len(sample)
    anyone = any(patient)
    room_until = lanes.room(until_ms, share) if anyone else room
    takes_at_most = [
        _most_ms(tariffs[kind.choices], paces, kind.choices, kind.within_ms - reserve_ms, 1)
        for kind in expected
    ]
    later_ms = brief(sample, rows, patient, least_ms) if anyone else least_ms
    near = views[-1][1] if views else 0
    ends = sorted({2 * kind.within_ms - reserve_ms for kind in expected})
    beyond = left_beyond(
        ends, lanes.room(ends, share), slack[near:], later_ms[near:], expected, least, reserve_ms
    )

    ahead = list(accumulate(rows))
    at_once = lanes.count * share
    tight = min(most_ms, default=math.inf) < math.inf

    def work(price: float) -> tuple[list[float], float]:
        """Lane time of each at `price`, and what is left at the tightest prefix."""
        ms = {
            choices: tariff.row_ms[tariff.at(fixed.get(choices.model, price))]
            if tariff.offers
            else 0.0
            for choices, tariff in tariffs.items()
        }
        ends_ms = {
            choices: _batch_ends_ms(tariff, fixed.get(choices.model, price), paces, choices)
            for choices, tariff in tariffs.items()
        }
        wanted = [ms[kind] * n for kind, n in zip(kinds, rows, strict=True)]
        each = list(map(min, wanted, most_ms)) if tight else wanted
        prefixes = list(accumulate(each))
        # Nobody is answered before the batch ends.
        needs = [
            need + at_once * ends_ms[kind][before >= ends_ms[kind][2]] if most == math.inf else need
            for need, kind, before, most in zip(prefixes, kinds, ahead, most_ms, strict=True)
        ]
        spare = min(map(sub, room_until if anyone else room, needs), default=math.inf)
        if anyone:
            waits, prefixes = starts(sample, rows, patient, each)
            spare = min(spare, *map(sub, room, waits))
        takes = list(map(min, [ms[kind.choices] for kind in expected], takes_at_most))
        for have, (_, queued), arriving in zip(room_ahead, views, coming, strict=True):
            need = sum(map(mul, takes, arriving)) + (prefixes[queued - 1] if queued else 0.0)
            spare = min(spare, have - need)
        return each, min(spare, beyond - (prefixes[near - 1] if near else 0.0))

    prices = sorted(
        {
            0.0,
            *[
                price
                for choices, tariff in tariffs.items()
                if choices.model not in fixed
                for price in tariff.prices
            ],
        }
    )
    price, (each_ms, spare_ms) = _lowest(prices, work, hint)
    crowded = spare_ms < 0
    if sample and price == prices[-1] and not crowded:
        crowded = spare_ms < lanes.count * share * _batch_ms(tariffs[kinds[0]], paces, kinds[0])
    return Solved(price, spare_ms, crowded, each_ms, least_ms)


_Work = tuple[list[float], float]


def _lowest(
    prices: Sequence[float], work: Callable[[float], _Work], hint: float
) -> tuple[float, _Work]:
    """The lowest price at which something is left, or else the highest; and its `work`.

    The higher the price the more is left, so halving finds it; but prices change little from one
    plan to the next, so the search begins at `hint` and its neighbour.
    """
    last = len(prices) - 1
    high = min(last, bisect_left(prices, hint))
    found: _Work | None = work(prices[high])
    assert found is not None
    if found[1] >= 0:
        low, neighbour = 0, high - 1
    elif high == last:
        return prices[last], found
    else:
        low, neighbour = high + 1, high + 1
        high, found = last, None
    while low < high:
        middle = neighbour if low <= neighbour < high else (low + high) // 2
        neighbour = -1
        tried = work(prices[middle])
        if tried[1] >= 0:
            high, found = middle, tried
        else:
            low = middle + 1
    return prices[high], work(prices[high]) if found is None else found


def _batch_ends_ms(
    tariff: Tariff, price: float, paces: Mapping[str, Pace], kind: Choices
) -> tuple[float, float, int]:
    """How long after its start a batch ends: of few rows, of a decent number, and that number.

    A batch whose time hardly grows with its rows has to be full to be efficient, and then the first
    of them waits for the last.
    """
    if not tariff.offers:
        return 0.0, 0.0, 0
    offer = tariff.offers[tariff.at(price)]
    pace = paces[kind.model]
    own_ms = tariff.row_ms[tariff.at(price)]
    few_ms = max(0.0, pace.typical_ms(offer, 1) - own_ms)
    return few_ms, max(0.0, pace.typical_ms(offer, offer.decent_rows) - own_ms), offer.decent_rows


def _most_ms(
    tariff: Tariff, paces: Mapping[str, Pace], kind: Choices, slack_ms: float, rows: int
) -> float:
    """Lane time of a row by the slowest choice that makes the deadline at all; else the least."""
    if not tariff.offers:
        return 0.0
    pace = paces[kind.model]
    for at, offer in enumerate(tariff.offers):
        if pace.promised_ms(offer, rows) <= slack_ms:
            return tariff.row_ms[at]
    return tariff.row_ms[-1]


def _batch_ms(tariff: Tariff, paces: Mapping[str, Pace], kind: Choices) -> float:
    """Time of a batch of some efficiency by the fastest choice."""
    if not tariff.offers:
        return 0.0
    fastest = tariff.offers[-1]
    return paces[kind.model].typical_ms(fastest, fastest.decent_rows)
