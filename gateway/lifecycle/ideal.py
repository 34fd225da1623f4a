"""The ideal: what would answer a request with everything loaded and nothing to do."""

from __future__ import annotations

from functools import lru_cache

from gateway.lifecycle.fleet import Fleet
from router.constraints import Constraints
from router.residency import Key
from router.route import Policy, route
from router.snapshot import idle
from router.telemetry import OVERHEAD_START_MS

# A request that only one variant may answer is refused without it, where others are merely
# answered less well than they could be.
_ALONE = 10.0


class Ideal:
    """Which variant each request would have, and how much that one is missed.

    Load is left out: whether a variant is loaded must not change how much it is wanted, or it
    would be evicted and loaded in turns.

    Attributes:
        policy: what is decided by; whoever sets it forgets what was decided.
    """

    def __init__(self, fleet: Fleet, policy: Policy) -> None:
        self.policy = policy
        self._fleet = fleet
        # Callers repeat themselves, and a decision costs as much as all else that is done here.
        self.of = lru_cache(maxsize=4096)(self._decide)

    def forget(self) -> None:
        """Decide anew: the variants, or what is decided by, are others."""
        self.of.cache_clear()

    def _decide(self, name: str, constraints: Constraints, rows: int) -> tuple[Key, float] | None:
        model = self._fleet.model(name)
        whole = frozenset([v for v, build in model.builds.items() if build.stage != "failed"])
        snapshot = idle(whole)._replace(overhead_ms=OVERHEAD_START_MS)
        decision = route(constraints, model.menu, snapshot, self.policy, rows)
        if decision.verdict != "accepted":
            return None
        return (name, decision.variant), 1.0 if len(decision.allowed) > 1 else _ALONE
