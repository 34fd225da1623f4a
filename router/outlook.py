"""The outlook: the last plan, carried forward to what has come and gone since.

A plan costs as much as several decisions, so those between two plans share one: what arrives is
added to it, and what a lane took is taken off.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from router.constraints import Priority
from router.pace import Pace
from router.plan import Plan
from router.queue import RANKS, Waiting

# A plan answers for that many arrivals, and for that long.
_ARRIVALS = 16
_OLDEST_S = 0.005


class Ahead(NamedTuple):
    """Lane time of what goes before a request: as planned, and at least, by the fastest choices."""

    planned_ms: float
    least_ms: float


class Outlook:
    """What waits, as the plan made at `planned_s` sees it."""

    def __init__(self, plan: Plan, planned_s: float, shares: Mapping[str, float]) -> None:
        self.prices = plan.prices
        self.price = max(plan.prices.values(), default=0.0)
        self.crowded = plan.crowded
        self._plan = plan
        self._planned_s = planned_s
        self._shares = shares
        self._due_s = [waiting.due_s for waiting in plan.sample]
        self._arrivals = 0
        self._more_ms = 0.0
        # By priority and model, as only work of the same or more urgent priority goes before.
        self._least: dict[tuple[int, str], Sequence[float]] = {}
        self._more_least_ms = [0.0] * len(RANKS)

    def is_stale(self, now_s: float) -> bool:
        """Whether a new plan is due."""
        return self._arrivals >= _ARRIVALS or now_s - self._planned_s >= _OLDEST_S

    def came(self, waiting: Waiting, pace: Pace) -> None:
        """A request was queued."""
        self._arrivals += 1
        self._shift(waiting, pace, 1)

    def went(self, waiting: Waiting, pace: Pace) -> None:
        """A request left the queue."""
        self._shift(waiting, pace, -1)

    def ahead(self, due_s: float, model: str, priority: Priority) -> Ahead:
        """What goes before a request that is due at `due_s`.

        At least it has to wait for those of its own priority or a higher one, since the others are
        shed first; and at most for its own model's, on the share of the lanes that is its own.
        """
        at = bisect_right(self._due_s, due_s)
        rank = RANKS[priority]
        planned = self._plan.planned_ms[at - 1] if at else 0.0
        least = self._prefixes(rank, "")[at] + self._more_least_ms[rank]
        if len(self._shares) > 1:
            own = self._prefixes(rank, model)[at] / self._shares.get(model, 1.0)
            least = min(least, own + self._more_least_ms[rank])
        return Ahead(max(0.0, planned + self._more_ms), max(0.0, least))

    def _prefixes(self, rank: int, model: str) -> Sequence[float]:
        """Least lane time of each prefix, of no priority below `rank` and of `model` if named."""
        known = self._least.get((rank, model))
        if known is None:
            counted = [
                ms if RANKS[w.priority] <= rank and (not model or w.choices.model == model) else 0.0
                for w, ms in zip(self._plan.sample, self._plan.least_ms, strict=True)
            ]
            known = self._least[rank, model] = [0.0, *accumulate(counted)]
        return known

    def _shift(self, waiting: Waiting, pace: Pace, sign: int) -> None:
        tariff = pace.tariff(waiting.choices)
        if not tariff.offers:
            return
        rows = waiting.rows * sign
        price = self.prices.get(waiting.choices.model, 0.0)
        self._more_ms += tariff.row_ms[tariff.at(price)] * rows
        for rank in range(RANKS[waiting.priority], len(RANKS)):
            self._more_least_ms[rank] += tariff.row_ms[-1] * rows
