"""The filter: which variants meet the constraints, and the reason for each that does not."""

from __future__ import annotations

from typing import NamedTuple

from router.constraints import Constraints, Floor
from router.decision import Constraint, Refusal
from router.menu import Offer

CONSTRAINTS: tuple[Constraint, ...] = ("max_latency_ms", "min_accuracy", "max_cost_usd_per_million")


class Option(NamedTuple):
    """A variant with what it would take to answer this request now."""

    offer: Offer
    latency_ms: float
    cost_usd_per_million: float


def broken(option: Option, constraints: Constraints) -> tuple[Constraint, ...]:
    """The constraints that `option` does not meet.

    Accuracy is judged by the lower end of the interval, never by the point estimate.
    """
    found: tuple[Constraint, ...] = ()
    limit = constraints.max_latency_ms
    if limit is not None and option.latency_ms > limit:
        found += ("max_latency_ms",)
    floor = constraints.min_accuracy
    if floor is not None:
        offer = option.offer
        if (offer.share_low if floor.relative else offer.accuracy_low) < floor.value:
            found += ("min_accuracy",)
    cap = constraints.max_cost_usd_per_million
    if cap is not None and option.cost_usd_per_million > cap:
        found += ("max_cost_usd_per_million",)
    return found


def meets(option: Option, constraints: Constraints) -> bool:
    """Whether `option` meets every constraint."""
    return not broken(option, constraints)


def refusal(option: Option, constraint: Constraint, constraints: Constraints) -> Refusal:
    """Why `option`, which breaks `constraint`, is refused: what was asked, what it offers."""
    name = option.offer.name
    if constraint == "max_latency_ms":
        return Refusal(name, constraint, constraints.max_latency_ms, option.latency_ms)
    if constraint == "max_cost_usd_per_million":
        cap = constraints.max_cost_usd_per_million
        return Refusal(name, constraint, cap, option.cost_usd_per_million)
    floor = constraints.min_accuracy
    assert floor is not None
    return Refusal(name, constraint, floor, offered_floor(option.offer, floor))


def offered_floor(offer: Offer, floor: Floor) -> Floor:
    """The highest floor of the same kind that `offer` meets."""
    return Floor(offer.share_low if floor.relative else offer.accuracy_low, floor.relative)
