"""Pace: how fast one model's variants really run now, and what its requests choose at a price.

When lane time is scarce every request pays for it: an answer by a variant is worth what its
`Choices` say, less the price of the lane time that it takes. At price 0 everybody is served by
their best; as the price rises each moves, when the accuracy lost is small for the time gained,
to a faster one. Which ones come into question and at which price they change is the upper
concave hull of (time, worth); everything between is dominated by a mixture of its neighbours
(Fox 1966, "Discrete optimization via marginal analysis").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from router.choices import Choices
from router.menu import Menu, Offer, batch_ms


@dataclass(frozen=True, slots=True)
class Tariff:
    """What requests with the same choices take, by the price of lane time.

    Attributes:
        prices: where the choice changes, rising, in worth per ms of lane time.
        offers: the choice below the first price, then from each price on.
        row_ms: lane time of one row by each of them, in a batch of the size that suits it.
    """

    prices: tuple[float, ...]
    offers: tuple[Offer, ...]
    row_ms: tuple[float, ...]

    def at(self, price: float) -> int:
        """Index of the choice at `price`."""
        return bisect_right(self.prices, price)


NOTHING = Tariff((), (), ())


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one model's variants run now.

    Attributes:
        menu: the model's variants.
        slowdown: by variant, how many times longer its batches take than its card says.
        ready: variants that are loaded, warm and healthy.
        tail: how many times longer than a card's promised percentile a batch may take by what was
            seen lately.
    """

    menu: Menu
    slowdown: Mapping[str, float]
    ready: frozenset[str]
    tail: float = 1.0
    _tariffs: dict[Choices, Tariff] = field(default_factory=dict, compare=False, repr=False)

    def promised_ms(self, offer: Offer, rows: int) -> float:
        """Time of a batch at the promised percentile."""
        factor = self.slowdown.get(offer.name, 1.0) * self.tail
        return batch_ms(offer.promised_ms, rows) * factor

    def rows_within(self, offer: Offer, ms: float) -> int:
        """Rows of the largest batch that takes at most `ms`, at the promised percentile."""
        factor = self.slowdown.get(offer.name, 1.0) * self.tail
        # A hair more, so that rounding does not lose the batch whose time it is.
        return bisect_right(offer.promised_ms, ms / factor * (1 + 1e-12)) - 1

    def typical_ms(self, offer: Offer, rows: int) -> float:
        """Time of a batch at the median."""
        return batch_ms(offer.typical_ms, rows) * self.slowdown.get(offer.name, 1.0)

    def tariff(self, choices: Choices) -> Tariff:
        """The tariff of these choices; without offers when none of them is ready."""
        tariff = self._tariffs.get(choices)
        if tariff is None:
            if len(self._tariffs) > 1024:  # kinds of request that were never seen again
                self._tariffs.clear()
            tariff = self._tariffs[choices] = self._hull(choices)
        return tariff

    def _hull(self, choices: Choices) -> Tariff:
        points: list[tuple[float, float, Offer]] = []
        for offer, worth in zip(choices.offers, choices.worth, strict=True):
            if offer.name not in self.ready:
                continue
            ms = offer.row_ms * self.slowdown.get(offer.name, 1.0)
            # It comes into question only where it is faster than all that are worth more.
            if points and ms >= points[-1][0]:
                continue
            if points and worth == points[-1][1]:
                points.pop()
            while len(points) > 1 and _slope(points[-2], points[-1]) >= _slope(
                points[-1], (ms, worth, offer)
            ):
                points.pop()
            points.append((ms, worth, offer))
        if not points:
            return NOTHING
        prices = [_slope(one, other) for one, other in pairwise(points)]
        return Tariff(
            tuple(prices), tuple(offer for *_, offer in points), tuple(ms for ms, *_ in points)
        )


def _slope(slower: tuple[float, float, Offer], faster: tuple[float, float, Offer]) -> float:
    """Worth lost for each ms gained by the faster of two."""
    return (slower[1] - faster[1]) / (slower[0] - faster[0])
