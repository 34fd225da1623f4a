"""At arrival: what a policy that assigns a variant to each request as it comes is told, and says.

The policies that decide late need none of it, so nothing is counted for them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from router.decision import Decision
from router.policies import Rule, Scene
from router.queue import MEMORY_S, Expected, Waiting

# A rate is told from at least as long.
_LEAST_AGE_S = 0.01


class Arrivals:
    """The requests asked for so far, and the rows that wait, by model and variant."""

    def __init__(self) -> None:
        self._asked = 0
        self._first_s: dict[str, float] = {}
        self._queued_rows: dict[str, Counter[str]] = {}

    def ticket(self) -> int:
        """The number of a request that is asked for now."""
        self._asked += 1
        return self._asked

    def rate_per_s(self, model: str, expected: Iterable[Expected], now_s: float) -> float:
        """Rows of `model` that arrive in a second, by what is `expected`."""
        per_ms = sum([kind.rows_per_ms for kind in expected if kind.choices.model == model])
        # The queue's memory starts out empty, which is not a rate of 0.
        age_s = max(now_s - self._first_s.setdefault(model, now_s), _LEAST_AGE_S)
        return per_ms * 1000 / (1 - math.exp(-age_s / MEMORY_S))

    def queued_rows(self, model: str) -> Mapping[str, int]:
        """Rows that wait for `model`, by the variant that they were assigned to."""
        return self._queued_rows.get(model, {})

    def queued(self, waiting: Waiting) -> None:
        """A request was queued."""
        self._count(waiting, waiting.rows)

    def left(self, waiting: Waiting) -> None:
        """A request left the queue."""
        self._count(waiting, -waiting.rows)

    def forget(self, model: str) -> None:
        """`model` has gone."""
        self._first_s.pop(model, None)
        self._queued_rows.pop(model, None)

    def _count(self, waiting: Waiting, rows: int) -> None:
        self._queued_rows.setdefault(waiting.choices.model, Counter())[waiting.routed] += rows


def assigned(decision: Decision, rule: Rule, scene: Scene) -> Decision:
    """`decision`, which accepts, with the variant that `rule` assigns; refused where it does not.

    Args:
        scene: what is true as the request arrives.
    """
    choices = decision.choices
    assert choices is not None
    offer = rule.assign(choices, scene)
    if offer is None:
        return Decision(
            decision.model,
            "overloaded",
            decision.objective,
            why=f"the policy assigns no variant of {decision.model} to this request",
            refused=decision.refused,
        )
    batch_ms = scene.pace.promised_ms(offer, scene.rows)
    estimate_ms = min(scene.lane_free_in_ms) + batch_ms + scene.overhead_ms
    return decision._replace(
        variant=offer.name,
        reason="assigned",
        why=f"assigned by the policy, of {len(choices.offers)} allowed",
        predicted_latency_ms=min(estimate_ms, scene.within_ms),
        estimate_ms=estimate_ms,
        accuracy=offer.accuracy,
        cost_usd_per_million=offer.cost_usd_per_million(scene.rows),
        allowed=(offer.name, *[name for name in decision.allowed if name != offer.name]),
    )
