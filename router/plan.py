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
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from router.pace import Pace
from router.price import Lanes, Solved, lowest_price
from router.queue import Expected, Waiting
from router.sample import sampled, sampled_each


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
    sample, rows = sampled(queue) if len(paces) < 2 else sampled_each(queue)
    lanes = Lanes(lane_free_in_ms)
    whole = 1.0 / (1.0 + caution)

    def solve(models: frozenset[str] | None, share: float, fixed: Mapping[str, float]) -> Solved:
        chosen = list(range(len(sample)))
        coming = expected
        if models is not None:
            chosen = [at for at in chosen if sample[at].choices.model in models]
            coming = [kind for kind in expected if kind.choices.model in models]
        return lowest_price(
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


def _cheaper(alone: Mapping[str, Solved], price: float) -> dict[str, float]:
    """The models that could do with less than `price` on their own shares, and with how much."""
    return {model: solved.price for model, solved in alone.items() if solved.price < price}
