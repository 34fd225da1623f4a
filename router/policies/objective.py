"""The default policy: the request's own objective, with equals by evidence.

For `accuracy`, a variant that is shown not to be worse than the best allowed one by more than the
margin (the lower end of the paired 95 % interval decides) counts as its equal, and the cheapest of
the equals serves. Being shown needs evidence: where a small test set leaves the interval wide, the
most accurate serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router.constraints import Objective
from router.feasible import Option
from router.menu import Menu
from router.policies import Ranking


def rank(options: Sequence[Option], objective: Objective, menu: Menu, margin: float) -> Ranking:
    """Order `options`, best first; ties fall to the other two objectives, then to the name."""
    count = len(options)
    if objective == "cost":
        return Ranking(sorted(options, key=_by_cost), "cheapest", f"cheapest of {count} allowed")
    if objective == "latency":
        return Ranking(sorted(options, key=_by_latency), "fastest", f"fastest of {count} allowed")
    top = max([option.offer.accuracy for option in options])
    best = min([o for o in options if o.offer.accuracy == top], key=_by_accuracy).offer
    equals: list[Option] = []
    others: list[Option] = []
    for option in options:
        (equals if menu.gap_low(option.offer, best) >= -margin else others).append(option)
    ordered = sorted(equals, key=_by_cost) + sorted(others, key=_by_accuracy)
    if ordered[0].offer is best:
        return Ranking(ordered, "most-accurate", f"most accurate of {count} allowed")
    return Ranking(
        ordered,
        "cheapest-equal",
        f"cheapest of {len(equals)} within {margin * 100:g} points of {best.name} by evidence",
    )


def _by_cost(option: Option) -> tuple[Any, ...]:
    offer = option.offer
    return option.cost_usd_per_million, -offer.accuracy, option.latency_ms, offer.name


def _by_latency(option: Option) -> tuple[Any, ...]:
    offer = option.offer
    return option.latency_ms, -offer.accuracy, option.cost_usd_per_million, offer.name


def _by_accuracy(option: Option) -> tuple[Any, ...]:
    offer = option.offer
    return -offer.accuracy, option.cost_usd_per_million, option.latency_ms, offer.name
