"""Choices: the variants that may answer a request, and what an answer by each is worth to it.

They follow from the cards and from what the request demands of accuracy and cost, which no queue
changes, so they are worked out once for all requests that demand alike. Time is left out: how
long a variant would take is known only when a lane comes free.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from router.constraints import Constraints, Floor, Objective
from router.decision import Refusal
from router.feasible import Option, broken, refusal
from router.menu import Menu, Offer, batch_ms

# One app demands a few kinds of answer; a gateway's apps, some thousands. What was worked out is
# kept on the menu itself, so that a menu that was replaced leaves nothing behind.
_KINDS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """What may answer, best first. Equal sets are one object, so that a queue has few of them.

    Attributes:
        offers: the variants that may.
        worth: what an answer by each is worth; it never rises along `offers`. Under `accuracy` it
            is the accuracy, where variants that are equal by evidence count as the best of them.
            Under the other objectives it falls by whole steps, which no scarcity of time outweighs
            while a better one makes the deadline.
        thrifty: whether the request optimises cost, and so would rather wait for company, which
            makes it cheaper, than run alone.
    """

    menu: Menu
    offers: tuple[Offer, ...]
    worth: tuple[float, ...]
    thrifty: bool = False

    @property
    def model(self) -> str:
        """Whose variants they are."""
        return self.menu.model


@dataclass(frozen=True, slots=True, eq=False)
class Eligible:
    """The choices of one kind of request, and why the other variants are not among them.

    Attributes:
        quotes: cost in USD per million of such requests, along `choices.offers`.
        refused: one entry for each constraint that a variant breaks.
    """

    choices: Choices
    quotes: tuple[float, ...]
    refused: tuple[Refusal, ...]


def eligible(
    constraints: Constraints, objective: Objective, menu: Menu, margin: float, rows: int
) -> Eligible:
    """What may answer a request of `rows` rows, whatever the load.

    Raises:
        UnknownVariant: the request pins a variant that the model does not have.
    """
    variant, floor = constraints.variant, constraints.min_accuracy
    cap = constraints.max_cost_usd_per_million
    key = variant, floor, cap, objective, margin, rows
    kind: Eligible | None = menu.kinds.get(key)
    if kind is None:
        kind = _eligible(menu, variant, floor, cap, objective, margin, rows)
        _keep(menu, key, kind)
    return kind


def _eligible(
    menu: Menu,
    variant: str | None,
    floor: Floor | None,
    cap: float | None,
    objective: Objective,
    margin: float,
    rows: int,
) -> Eligible:
    timeless = Constraints(min_accuracy=floor, max_cost_usd_per_million=cap)
    pinned = None if variant is None else menu.resolve(variant)
    options: list[Option] = []
    refused: list[Refusal] = []
    for offer in menu.offers:
        if pinned is not None and offer is not pinned:
            refused.append(Refusal(offer.name, "variant"))
            continue
        if pinned is None and offer.name in menu.withheld:
            refused.append(Refusal(offer.name, "canary"))
            continue
        option = Option(offer, 0.0, offer.cost_usd_per_million(rows))
        misses = broken(option, timeless)
        if misses:
            refused.extend([refusal(option, name, timeless) for name in misses])
        else:
            options.append(option)
    offers, worth = ranked(tuple(o.offer for o in options), objective, menu, margin, rows)
    return Eligible(
        _interned(menu, offers, worth, objective == "cost"),
        tuple(offer.cost_usd_per_million(rows) for offer in offers),
        tuple(refused),
    )


def _interned(
    menu: Menu, offers: tuple[Offer, ...], worth: tuple[float, ...], thrifty: bool
) -> Choices:
    key = offers, worth, thrifty
    choices: Choices | None = menu.kinds.get(key)
    if choices is None:
        choices = Choices(menu, offers, worth, thrifty)
        _keep(menu, key, choices)
    return choices


def _keep(menu: Menu, key: Hashable, found: Eligible | Choices) -> None:
    if len(menu.kinds) >= _KINDS:  # kinds of request that were never seen again
        menu.kinds.clear()
    menu.kinds[key] = found


def in_order(menu: Menu, offers: Sequence[Offer]) -> Choices:
    """Choices in the order given, each worth a whole step less than the one before."""
    return _interned(menu, tuple(offers), _steps(len(offers)), False)


def without(choices: Choices, variant: str) -> Choices:
    """`choices` less one of them, which failed; without offers where there is no other."""
    kept = [
        (offer, worth)
        for offer, worth in zip(choices.offers, choices.worth, strict=True)
        if offer.name != variant
    ]
    offers, worth = tuple(o for o, _ in kept), tuple(w for _, w in kept)
    return _interned(choices.menu, offers, worth, choices.thrifty)


def ranked(
    offers: Sequence[Offer], objective: Objective, menu: Menu, margin: float, rows: int
) -> tuple[tuple[Offer, ...], tuple[float, ...]]:
    """`offers` best first by `objective`, and what each is worth.

    For `accuracy`, a variant that is shown not to be worse than the best one by more than the
    margin (the lower end of the paired 95 % interval decides) counts as its equal, and the
    cheapest of the equals comes first; what is left is ranked likewise. Being shown needs
    evidence: where a small test set leaves the interval wide, the most accurate comes first. Ties
    fall to the other objectives, then to the name.
    """
    if objective == "cost":
        ordered = sorted(offers, key=lambda o: (_quote(o, rows), -o.accuracy, _ms(o, rows), o.name))
        return tuple(ordered), _steps(len(ordered))
    if objective == "latency":
        ordered = sorted(offers, key=lambda o: (_ms(o, rows), -o.accuracy, _quote(o, rows), o.name))
        return tuple(ordered), _steps(len(ordered))
    left = sorted(offers, key=lambda o: (-o.accuracy, _quote(o, rows), _ms(o, rows), o.name))
    order: list[Offer] = []
    worth: list[float] = []
    while left:
        best = left[0]
        equals = [offer for offer in left if menu.gap_low(offer, best) >= -margin]
        equals.sort(key=lambda o: (_quote(o, rows), -o.accuracy, _ms(o, rows), o.name))
        order += equals
        worth += [best.accuracy] * len(equals)
        left = [offer for offer in left if offer not in equals]
    return tuple(order), tuple(worth)


def _steps(count: int) -> tuple[float, ...]:
    return tuple([-float(step) for step in range(count)])


def _quote(offer: Offer, rows: int) -> float:
    return offer.cost_usd_per_million(rows)


def _ms(offer: Offer, rows: int) -> float:
    return batch_ms(offer.promised_ms, rows)
