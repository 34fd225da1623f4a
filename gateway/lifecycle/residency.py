"""Residency: the slow loop that keeps the variants that are wanted most within the memory limit.

`router.residency` says what should be loaded. What it is told is in `limit`, `demand` and `ideal`
beside this file, and how that is carried out in `turnover`.

The same loop loads what is new in the store and lets go of what is not wanted any more, limit or
not: one thing at a time, by `router.lifecycle`, so that nobody's requests are disturbed by more
than one load. A build that is to take another's place is loaded beside it, where there is room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from gateway import memory
from gateway.hosts import Host
from gateway.lifecycle import gently
from gateway.lifecycle.arrivals import Arrivals
from gateway.lifecycle.demand import Demand
from gateway.lifecycle.fleet import Fleet
from gateway.lifecycle.ideal import Ideal
from gateway.lifecycle.limit import Limit
from gateway.lifecycle.loader import Loader
from gateway.lifecycle.looks import SOONEST_S, Looks
from gateway.lifecycle.turnover import Turnover
from gateway.metrics import Metrics
from gateway.settings import Settings, SettingsError
from router.constraints import Constraints
from router.residency import DoesNotFit, Key, Plan
from router.rollout import Rollout
from router.route import Policy

_LOG = logging.getLogger(__name__)

# How long demand takes to count half, and how long what was loaded stays at least, in looks. Demand
# outlives a stay, so that two callers who take turns do not evict each other's variant.
_HALF_LIFE = 6.0
_LEAST_STAY = 3.0


class Residency:
    """Which variants of a fleet are loaded. Everything runs on the event loop's thread.

    Raises:
        SettingsError: the limit does not hold one variant of every model.
    """

    def __init__(self, fleet: Fleet, settings: Settings, policy: Policy, metrics: Metrics) -> None:
        self._fleet = fleet
        self._settings = settings
        self._metrics = metrics
        self._limit = Limit(fleet, settings)
        self._ideal = Ideal(fleet, policy)
        self._demand = Demand(_HALF_LIFE * settings.residency_seconds)
        self._since_s: dict[Key, float] = {}
        self._arrivals = Arrivals()
        self._looks = Looks(self._settle, self._every_s)
        self._stopping = False
        self._loader: Loader | None = None
        self._first = self._planned()

    def govern(self, settings: Settings, policy: Policy) -> None:
        """Keep to another limit, or look at other times, or for other wishes.

        Raises:
            SettingsError: the limit does not hold one variant of every model; the old one holds.
        """
        before = self._settings, self._ideal.policy
        self._obey(settings, policy)
        try:
            self._planned()
        except SettingsError:
            self._obey(*before)
            raise
        self._ideal.forget()
        self.look()

    def _obey(self, settings: Settings, policy: Policy) -> None:
        self._settings, self._ideal.policy = settings, policy
        self._limit.obey(settings)

    def _planned(self) -> Plan:
        try:
            return self._plan()
        except DoesNotFit as error:
            raise self._limit.too_low(error) from error

    def _plan(self) -> Plan:
        least_s = _LEAST_STAY * self._settings.residency_seconds
        return self._limit.plan(self._demand, self._since_s, least_s)

    def _every_s(self) -> float | None:
        return None if self._limit.bytes is None else self._settings.residency_seconds

    @property
    def _loading(self) -> Loader:
        assert self._loader is not None, "it has not been started"
        return self._loader

    @property
    def loaded_bytes(self) -> int:
        """As `Limit.loaded_bytes`."""
        return self._limit.loaded_bytes

    def room(self, shadows_bytes: int) -> bool:
        """As `Limit.has_room`."""
        return self._limit.has_room(shadows_bytes)

    def check_shadow(self, model: str, variant: str, rollout: Rollout) -> None:
        """As `Limit.check_shadow`."""
        self._limit.check_shadow(model, variant, rollout)

    @property
    def patience_s(self) -> float:
        """How long a request without a deadline waits for a variant, at most: what was loaded stays
        for a while, and then this one must be loaded."""
        looks_s = (_LEAST_STAY + 2) * self._settings.residency_seconds
        return looks_s + SOONEST_S + 2 * self._loading.longest_s

    @property
    def waiting(self) -> int:
        """Requests that wait for a variant to be loaded."""
        return self._arrivals.waiting.total()

    @property
    def waiting_for(self) -> Counter[str]:
        """The same by model."""
        return self._arrivals.waiting.copy()

    def wanted(self, model: str, constraints: Constraints, rows: int) -> None:
        """Count a request for the variant that would have answered it, had all been loaded."""
        if self._limit.bytes is not None and (ideal := self._ideal.of(model, constraints, rows)):
            key, weight = ideal
            self._demand.count(key, time.monotonic(), weight)

    def hurry(self, model: str, constraints: Constraints, rows: int) -> float | None:
        """Look at once, for a request that was refused because what it needs is not loaded.

        Returns:
            After how many seconds it is worth asking again; None where nothing could help.
        """
        if self._limit.bytes is None or self._ideal.of(model, constraints, rows) is None:
            return None
        self.look()
        return SOONEST_S + self._loading.longest_s

    async def awaited(
        self, model: str, constraints: Constraints, rows: int, until_s: float
    ) -> bool:
        """Wait for what such a request needs to be loaded, where that can be in time.

        Returns:
            Whether something has come into memory meanwhile, so that it is worth deciding again.

        Args:
            until_s: monotonic time until which its caller waits.
        """
        limited = self._limit.bytes is not None
        ideal = self._ideal.of(model, constraints, rows) if limited else None
        if ideal is None or self._stopping:
            return False
        now_s = time.monotonic()
        load_s = self._loading.load_s(ideal[0])
        if now_s + load_s >= until_s:
            return False
        self.look()
        return await self._arrivals.next(model, until_s - now_s) and not self._stopping

    async def start(
        self,
        in_use: Callable[[str, str], bool],
        hosts: Sequence[Host],
        *,
        change: Callable[[Callable[[], None]], None] = lambda alter: alter(),
        holds: Callable[[str], bool] = lambda _: False,
        replaced: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """Load the first set, and from then on what the demand, the store and the operator ask for.

        Returns when every variant of the first set is loaded and warm, or has failed.

        Args:
            in_use: whether a request that is queued or running was promised a variant of a model.
            hosts: where to load, one for each lane.
            change: runs what it is given while no lane looks at the fleet.
            holds: whether a request that is queued or running may be answered by the build of that
                digest.
            replaced: is told of a variant of a model that another build serves from now on.
        """
        self._loader = Loader(self._fleet, self._metrics, hosts, change, holds, self.look)
        self._turnover = Turnover(
            self._fleet,
            self._limit,
            self._loader,
            self._metrics,
            self._since_s,
            in_use=in_use,
            replaced=replaced,
            loaded=self._arrivals.announce,
            failed=self._ideal.forget,  # it is no longer what anybody can want
        )
        chosen = frozenset(self._first.load)
        await gently.apart(
            self._fleet.load,
            hosts,
            threads=self._settings.threads_per_lane,
            max_batch=self._settings.max_batch,
            trust=self._settings.trust_store,
            chosen=chosen,
        )
        await asyncio.to_thread(memory.trim)
        for name, variant in sorted(chosen):
            model = self._fleet.model(name)
            self._loading.learn(model, model.builds[variant])
            self._turnover.arrived((name, variant))
        if self._limit.bytes is not None:
            await self._settle()  # where one has failed there is room for others
        if not self._stopping:
            self._looks.start()

    def look(self) -> None:
        """Look at what is wanted soon: something has changed."""
        self._looks.soon()

    async def settled(self) -> None:
        """Return when everything that is wanted now is loaded, has failed, or is out of memory."""
        if await self._looks.looked():
            await self._loading.seen_off()

    async def stop(self, patience_s: float) -> None:
        """Change nothing any more; returns when what is being loaded is loaded, or out of patience.

        An engine may hang in its own code.
        """
        self._stopping = True
        if self._loader is not None:
            self._loader.stopping = True
        self._arrivals.announce()
        await self._looks.end(patience_s)

    async def _settle(self) -> None:
        """Change what is loaded until there is nothing to change, or no change is possible now."""
        while not self._stopping:
            self._ideal.forget()
            self._loading.see_off()
            if await self._turnover.replace_one():
                continue
            try:
                plan = self._plan()
            except DoesNotFit as error:  # a smaller one has failed, or a model has come
                _LOG.error("what is loaded stays: %s", error)
                return
            if not any(plan) or not await self._turnover.carry_out(plan):
                return
