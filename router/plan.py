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

One without a deadline, or with a distant one, is due when its patience ends for the order alone: by
then it should have begun. However much work it is, it gives none of its accuracy up for itself.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from operator import mul, sub
from typing import NamedTuple

from router.choices import Choices
from router.pace import NOTHING, Pace, Tariff
from router.patience import brief, spares, starts
from router.queue import Expected, Waiting

# Prefixes of a long queue that are looked at.
SAMPLES = 20
# Every so many of them are also judged with what is likely to come before they are due.
VIEWS = 5
# Of those that are due much later than usual, none is: until then there is time to make up for what
# comes. In usual deadlines.
FAR = 6


class Plan(NamedTuple):
    """What lane time is worth, and what follows from it.

    Attributes:
        prices: worth of a ms of lane time, by model.
        spare_ms: lane time that is left, at the tightest prefix, at these prices; negative when
            somebody will be late at any price.
        crowded: whether that is so, or nearly: the lanes have no time to spare for another batch,
            though everybody is served by the fastest choice.
        over: models that want more than their share, while not everybody can be served.
        sample: the last request of each prefix that was looked at.
        planned_ms: lane time of each prefix at these prices.
        least_ms: what each sampled request, with those it stands for, takes by its fastest choice.
    """

    prices: Mapping[str, float]
    spare_ms: float
    crowded: bool
    over: frozenset[str]
    sample: Sequence[Waiting]
    planned_ms: Sequence[float]
    least_ms: Sequence[float]


NOTHING_PLANNED = Plan({}, math.inf, False, frozenset(), (), (), ())


class _Solved(NamedTuple):
    price: float
    spare_ms: float
    crowded: bool
    each_ms: list[float]
    least_ms: list[float]


def plan(
    queue: Sequence[Waiting],
    expected: Sequence[Expected],
    now_s: float,
    lane_free_in_ms: Sequence[float],
    paces: Mapping[str, Pace],
    reserve_ms: float = 0.0,
    weights: Mapping[str, float] | None = None,
    hint: float = 0.0,
    caution: float = 0.0,
) -> Plan:
    """The plan for what waits in `queue`, sorted by urgency.

    Models that share the lanes share one price while that suffices for all. A model that could do
    with a lower price on its own share of the lanes, by the weights, gets that price: another
    model's flood does not cost it accuracy.

    Args:
        expected: what keeps arriving.
        lane_free_in_ms: for each lane, time until its running batch ends; 0 when idle.
        paces: by model; requests of a model that is absent take no time.
        reserve_ms: kept free before each deadline.
        weights: of the lanes' time, by model; 1 for those that are absent.
        hint: a price near which the search begins; it changes the time it takes alone.
        caution: how much longer work is taken to last than planned, as a share of it.
    """
    sample, rows = _sample(queue) if len(paces) < 2 else _sample_each(queue)
    lanes = _Lanes(lane_free_in_ms)
    whole = 1.0 / (1.0 + caution)

    def solve(models: frozenset[str] | None, share: float, fixed: Mapping[str, float]) -> _Solved:
        chosen = list(range(len(sample)))
        coming = expected
        if models is not None:
            chosen = [at for at in chosen if sample[at].choices.model in models]
            coming = [kind for kind in expected if kind.choices.model in models]
        return _solve(
            [sample[at] for at in chosen],
            [rows[at] for at in chosen],
            coming,
            now_s,
            lanes,
            paces,
            reserve_ms,
            share,
            hint,
            fixed,
        )

    together = solve(None, whole, {})
    models = {waiting.choices.model for waiting in sample}
    models.update([kind.choices.model for kind in expected])
    # One whose requests are too few to be looked at has a price as well.
    prices = dict.fromkeys([*paces, *models], together.price)
    over: frozenset[str] = frozenset()
    each_ms = together.each_ms
    if len(models) > 1 and together.price > 0:
        of_each = shares(models, weights or {})
        alone = {model: solve(frozenset((model,)), of_each[model] * whole, {}) for model in models}
        over = frozenset([model for model in models if alone[model].spare_ms < 0])
        modest = _cheaper(alone, together.price)
        while modest and len(modest) < len(models):
            # What the modest leave of their shares is everybody's.
            rest = solve(None, whole, modest)
            prices = {model: modest.get(model, rest.price) for model in prices}
            each_ms = rest.each_ms
            more = modest | _cheaper(alone, rest.price)
            if more == modest:
                break
            modest = more
    return Plan(
        prices,
        together.spare_ms,
        together.crowded,
        over,
        sample,
        list(accumulate(each_ms)),
        together.least_ms,
    )


def shares(models: Collection[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Of the lanes' time, each model's share by its weight; 1 for those without one."""
    total = sum([weights.get(model, 1.0) for model in models])
    return {model: weights.get(model, 1.0) / total for model in models}


def _cheaper(alone: Mapping[str, _Solved], price: float) -> dict[str, float]:
    """The models that could do with less than `price` on their own shares, and with how much."""
    return {model: solved.price for model, solved in alone.items() if solved.price < price}


class _Lanes:
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


def _solve(
    sample: Sequence[Waiting],
    rows: Sequence[int],
    expected: Sequence[Expected],
    now_s: float,
    lanes: _Lanes,
    paces: Mapping[str, Pace],
    reserve_ms: float,
    share: float,
    hint: float,
    fixed: Mapping[str, float],
) -> _Solved:
    """The lowest price at which these make their deadlines on their share of the lanes.

    Models in `fixed` have that price whatever the others pay.
    """
    kinds = [waiting.choices for waiting in sample]
    slack = [(waiting.due_s - now_s) * 1000 - reserve_ms for waiting in sample]
    room = lanes.room(slack, share)
    views = _views(slack, expected, reserve_ms)
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
    beyond = _beyond(
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
    return _Solved(price, spare_ms, crowded, each_ms, least_ms)


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


def _sample_each(queue: Sequence[Waiting]) -> tuple[list[Waiting], list[int]]:
    """As `_sample`, of each model by itself.

    One request of a modest model would else stand for many of the model that floods.
    """
    if len(queue) <= SAMPLES:
        return _sample(queue)
    by_model: dict[str, list[Waiting]] = {}
    for waiting in queue:
        by_model.setdefault(waiting.choices.menu.model, []).append(waiting)
    if len(by_model) == 1:
        return _sample(queue)
    each = -(-SAMPLES // len(by_model))
    found = [pair for few in by_model.values() for pair in zip(*_sample(few, each), strict=True)]
    found.sort()
    return [waiting for waiting, _ in found], [rows for _, rows in found]


def _sample(queue: Sequence[Waiting], samples: int = SAMPLES) -> tuple[list[Waiting], list[int]]:
    """The ends of the prefixes to look at, and the rows that each adds, taking it for its like."""
    count = len(queue)
    step = -(-count // samples) or 1
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
    usual_ms = rate / sum([kind.rows_per_ms / kind.within_ms for kind in expected])
    ahead_ms = 2 * usual_ms - reserve_ms
    near = bisect_right(slack, ahead_ms)
    far = bisect_right(slack, FAR * usual_ms)
    views = [(slack[at], at + 1) for at in range(VIEWS - 1, far, VIEWS)]
    return [*views, (ahead_ms, near)]


def _beyond(
    ends: Sequence[float],
    room: Sequence[float],
    slack: Sequence[float],
    least_ms: Sequence[float],
    expected: Sequence[Expected],
    least: Mapping[Choices, float],
    reserve_ms: float,
) -> float:
    """Lane time left for what is due soon if all that is due later takes its least.

    What waits long, or comes later, must not be left more than can be made up for.

    Args:
        ends, room: times ahead to look at, and the lane time until then.
        slack, least_ms: of what waits and is not due soon.
    """
    later = [0.0, *accumulate(least_ms)]
    spare = math.inf
    for at, have in zip(ends, room, strict=True):
        coming = sum(
            [
                least[kind.choices] * kind.rows_per_ms * max(0.0, at - reserve_ms - kind.within_ms)
                for kind in expected
            ]
        )
        spare = min(spare, have - later[bisect_right(slack, at)] - coming)
    return spare
