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


def meets_latency(option: Option, constraints: Constraints) -> bool:
    """Whether the predicted latency is within the deadline."""
    limit = constraints.max_latency_ms
    return limit is None or option.latency_ms <= limit


def meets_accuracy(offer: Offer, constraints: Constraints) -> bool:
    """Whether the lower end of the interval, never the point estimate, reaches the floor."""
    floor = constraints.min_accuracy
    if floor is None:
        return True
    return (offer.share_low if floor.relative else offer.accuracy_low) >= floor.value


def meets_cost(option: Option, constraints: Constraints) -> bool:
    """Whether the quote is within the cap."""
    cap = constraints.max_cost_usd_per_million
    return cap is None or option.cost_usd_per_million <= cap


def meets(option: Option, constraints: Constraints) -> bool:
    """Whether every constraint is met."""
    return (
        meets_accuracy(option.offer, constraints)
        and meets_latency(option, constraints)
        and meets_cost(option, constraints)
    )


def refusals(option: Option, constraints: Constraints) -> list[Refusal]:
    """One entry for each constraint that `option` breaks; empty exactly when it meets them all."""
    offer = option.offer
    broken: list[Refusal] = []
    if not meets_latency(option, constraints):
        broken.append(
            Refusal(offer.name, "max_latency_ms", constraints.max_latency_ms, option.latency_ms)
        )
    if not meets_accuracy(offer, constraints):
        floor = constraints.min_accuracy
        assert floor is not None
        broken.append(Refusal(offer.name, "min_accuracy", floor, offered_floor(offer, floor)))
    if not meets_cost(option, constraints):
        broken.append(
            Refusal(
                offer.name,
                "max_cost_usd_per_million",
                constraints.max_cost_usd_per_million,
                option.cost_usd_per_million,
            )
        )
    return broken


def offered_floor(offer: Offer, floor: Floor) -> Floor:
    """The highest floor of the same kind that `offer` meets."""
    return Floor(offer.share_low if floor.relative else offer.accuracy_low, floor.relative)
