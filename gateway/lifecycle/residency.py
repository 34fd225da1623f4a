"""Residency: the slow loop that keeps the variants that are wanted most within the memory limit.

`router.residency` says what should be loaded; here is what it is told and how that is carried out.
A variant counts what it takes by its card, once for each lane. The process itself, the engines and
the requests come on top, and so does what an engine keeps for all programs together: eight variants
of the digits network on two lanes grew a process by 570 MB, where such cards say 316 MB. Without a
limit everything is loaded and nothing is counted.

Shadows, which have one program each wherever it lives, come first: what they take is kept free.

A change never takes a variant away from a request that was promised it, and never goes over the
limit on the way: a variant leaves the menu first, what is queued for it still runs, and only then
are its programs closed and others loaded into the room. A model is without any variant for a
moment only where the limit does not hold its old and its new one side by side.

The same loop loads what is new in the store and lets go of what is not wanted any more, limit or
not: one thing at a time, by `router.lifecycle`, so that nobody's requests are disturbed by more
than one load. A build that is to take another's place is loaded beside it, where there is room.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from gateway import memory
from gateway.hosts import Host
from gateway.lifecycle import change, gently
from gateway.lifecycle.demand import Demand
from gateway.lifecycle.fleet import Fleet
from gateway.lifecycle.loader import POLL_S, Loader
from gateway.lifecycle.room import check_shadow, shadows_bytes
from gateway.metrics import Metrics
from gateway.settings import Settings, SettingsError
from router.constraints import Constraints
from router.residency import Candidate, DoesNotFit, Key, Plan, residency
from router.rollout import Rollout
from router.route import Policy, route
from router.snapshot import idle
from router.telemetry import OVERHEAD_START_MS

_LOG = logging.getLogger(__name__)

# How long demand takes to count half, and how long what was loaded stays at least, in looks. Demand
# outlives a stay, so that two callers who take turns do not evict each other's variant.
_HALF_LIFE = 6.0
_LEAST_STAY = 3.0
# A request that only one variant may answer is refused without it, where others are merely
# answered less well than they could be.
_ALONE = 10.0
# A refused request does not wait for the next look; but looks are no closer than this.
_SOONEST_S = 1.0
# An evicted variant that is still needed after this long, because the queue is that long, is kept:
# under such a load no change would help.
_DRAIN_S = 10.0


class Residency:
    """Which variants of a fleet are loaded. Everything runs on the event loop's thread.

    Raises:
        SettingsError: the limit does not hold one variant of every model.
    """

    def __init__(self, fleet: Fleet, settings: Settings, policy: Policy, metrics: Metrics) -> None:
        self._fleet = fleet
        self._settings = settings
        self._metrics = metrics
        self._demand = Demand(_HALF_LIFE * settings.residency_seconds)
        self._since_s: dict[Key, float] = {}
        self._wake = asyncio.Event()
        self._looked: list[asyncio.Future[None]] = []
        self._arrivals: list[asyncio.Future[None]] = []
        self._waiting: Counter[str] = Counter()
        self._stopping = False
        self._loader: Loader | None = None
        self._task: asyncio.Task[None] | None = None
        # Callers repeat themselves, and a decision costs as much as all else that is done here.
        self._ideal = lru_cache(maxsize=4096)(self._decide_ideal)
        self._obey(settings, policy)
        self._first = self._planned()

    def govern(self, settings: Settings, policy: Policy) -> None:
        """Keep to another limit, or look at other times, or for other wishes.

        Raises:
            SettingsError: the limit does not hold one variant of every model; the old one holds.
        """
        before = self._settings, self._policy
        self._obey(settings, policy)
        try:
            self._planned()
        except SettingsError:
            self._obey(*before)
            raise
        self._ideal.cache_clear()
        self._wake.set()

    def _obey(self, settings: Settings, policy: Policy) -> None:
        self._settings, self._policy = settings, policy
        limit_mb = settings.memory_limit_mb
        # Each worker keeps its share.
        self._limit = None if limit_mb is None else round(limit_mb * 1e6 / settings.workers)
        self._every_s = settings.residency_seconds

    def _planned(self) -> Plan:
        try:
            return self._plan()
        except DoesNotFit as error:
            workers = self._settings.workers
            shadows = shadows_bytes(self._fleet)
            least_mb = math.ceil((error.least_bytes + shadows) * workers / 1e3) / 1e3
            limit_mb = (error.limit_bytes + shadows) * workers / 1e6
            beside = " beside the shadows" if shadows else ""
            raise SettingsError(
                f"memory_limit_mb: expected at least {least_mb:.10g}, which one variant of every "
                f"model takes on {self._settings.lanes * workers} lanes{beside}, "
                f"got {limit_mb:.10g}"
            ) from error

    @property
    def _loading(self) -> Loader:
        assert self._loader is not None, "it has not been started"
        return self._loader

    @property
    def loaded_bytes(self) -> int:
        """What takes memory now, by the cards, one that is leaving included."""
        lanes = self._settings.lanes
        return sum(
            loaded.card.resident_bytes * lanes
            for model in self._fleet.everything().values()
            for loaded in (*model.loaded.values(), *[b.loaded for b in model.leaving if b.loaded])
        )

    def room(self, shadows_bytes: int) -> bool:
        """Whether the limit has room for shadows that take so many bytes, beside what is loaded."""
        return self._limit is None or self.loaded_bytes + shadows_bytes <= self._limit

    def check_shadow(self, model: str, variant: str, rollout: Rollout) -> None:
        """As `room.check_shadow`, under this limit."""
        if self._limit is not None:
            check_shadow(self._fleet, self._settings, self._limit, model, variant, rollout)

    @property
    def _left(self) -> int | None:
        """The limit for what is not a shadow."""
        return None if self._limit is None else self._limit - shadows_bytes(self._fleet)

    @property
    def patience_s(self) -> float:
        """How long a request without a deadline waits for a variant, at most: what was loaded stays
        for a while, and then this one must be loaded."""
        return (_LEAST_STAY + 2) * self._every_s + _SOONEST_S + 2 * self._loading.longest_s

    @property
    def waiting(self) -> int:
        """Requests that wait for a variant to be loaded."""
        return self._waiting.total()

    @property
    def waiting_for(self) -> Counter[str]:
        """The same by model."""
        return self._waiting.copy()

    def wanted(self, model: str, constraints: Constraints, rows: int) -> None:
        """Count a request for the variant that would have answered it, had all been loaded."""
        if self._limit is not None and (ideal := self._ideal(model, constraints, rows)):
            key, weight = ideal
            self._demand.count(key, time.monotonic(), weight)

    def hurry(self, model: str, constraints: Constraints, rows: int) -> float | None:
        """Look at once, for a request that was refused because what it needs is not loaded.

        Returns:
            After how many seconds it is worth asking again; None where nothing could help.
        """
        if self._limit is None or self._ideal(model, constraints, rows) is None:
            return None
        self._wake.set()
        return _SOONEST_S + self._loading.longest_s

    async def awaited(
        self, model: str, constraints: Constraints, rows: int, until_s: float
    ) -> bool:
        """Wait for what such a request needs to be loaded, where that can be in time.

        Returns:
            Whether something has come into memory meanwhile, so that it is worth deciding again.

        Args:
            until_s: monotonic time until which its caller waits.
        """
        ideal = self._ideal(model, constraints, rows) if self._limit is not None else None
        if ideal is None or self._stopping:
            return False
        now_s = time.monotonic()
        load_s = self._loading.load_s(ideal[0])
        if now_s + load_s >= until_s:
            return False
        self._waiting[model] += 1
        self._wake.set()
        try:
            async with asyncio.timeout(until_s - now_s):
                await self._came()
        except TimeoutError:
            return False
        finally:
            self._waiting[model] -= 1
        return not self._stopping

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
        self._in_use = in_use
        self._replaced = replaced
        self._loader = Loader(self._fleet, self._metrics, hosts, change, holds, self.look)
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
            self._loaded((name, variant))
        if self._limit is not None:
            await self._settle()  # where one has failed there is room for others
        if not self._stopping:
            self._task = asyncio.create_task(self._run())

    def look(self) -> None:
        """Look at what is wanted soon: something has changed."""
        self._wake.set()

    async def settled(self) -> None:
        """Return when everything that is wanted now is loaded, has failed, or is out of memory."""
        if self._task is None or self._stopping:
            return
        looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looked.append(looked)
        self._wake.set()
        await looked
        await self._loading.seen_off()

    async def stop(self, patience_s: float) -> None:
        """Change nothing any more; returns when what is being loaded is loaded, or out of patience.

        An engine may hang in its own code.
        """
        self._stopping = True
        if self._loader is not None:
            self._loader.stopping = True
        self._wake.set()
        for future in self._arrivals:
            if not future.done():
                future.set_result(None)
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=patience_s)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                async with asyncio.timeout(None if self._limit is None else self._every_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            looked, self._looked = self._looked, []
            try:
                await self._settle()
            except Exception:
                _LOG.exception("the loaded variants could not be changed")
            for future in looked:
                if not future.done():
                    future.set_result(None)
            if not self._stopping and self._limit is not None and not self._looked:
                await asyncio.sleep(min(_SOONEST_S, self._every_s))
        for future in self._looked:
            if not future.done():
                future.set_result(None)

    async def _settle(self) -> None:
        """Change what is loaded until there is nothing to change, or no change is possible now."""
        while not self._stopping:
            self._ideal.cache_clear()
            self._loading.see_off()
            if await self._replace():
                continue
            try:
                plan = self._plan()
            except DoesNotFit as error:  # a smaller one has failed, or a model has come
                _LOG.error("what is loaded stays: %s", error)
                return
            if not any(plan) or not await self._carry_out(plan):
                return

    async def _replace(self) -> bool:
        """Let one incoming build take its place, or give it up; False where there is none."""
        for model in self._fleet.models():
            for variant, build in model.incoming.items():
                need = build.entry.card.resident_bytes * self._settings.lanes
                current = model.builds[variant]
                left = self._left
                if left is not None and self.loaded_bytes + need > left:
                    # Without room for both the old one goes first.
                    self._loading.change(partial(change.withdraw, model, variant))
                    self._since_s.pop((model.name, variant), None)
                    return True
                loaded = await self._loading.prepared(model, build, self._settings)
                if model.incoming.get(variant) is not build or model.builds[variant] is not current:
                    if loaded is not None:  # the store or the operator changed its mind meanwhile
                        await asyncio.to_thread(loaded.close)
                    return True
                if loaded is None:
                    del model.incoming[variant]
                    change.keep(model, variant, build.why)
                    return True
                model.not_worse = await gently.run(change.evidence_with, model, variant)
                self._loading.change(partial(change.switch, model, variant, loaded))
                self._replaced(model.name, variant)
                self._since_s[model.name, variant] = time.monotonic()
                self._metrics.loaded(model.name, variant)
                self._metrics.swapped(model.name, variant)
                _LOG.warning("%s/%s: a new build serves", model.name, variant)
                return True
        return False

    def _plan(self) -> Plan:
        now_s = time.monotonic()
        return residency(
            [
                Candidate(
                    model=model.name,
                    variant=offer.name,
                    bytes=self._bytes((model.name, offer.name)),
                    demand=self._demand.rate((model.name, offer.name), now_s),
                    # The menu's order is by accuracy, which a request that demands nothing wants;
                    # the reference meets every floor that is relative to it.
                    rank=0 if offer.name == model.reference else place,
                    loaded_s=self._since_s.get((model.name, offer.name))
                    if offer.name in model.loaded
                    else None,
                )
                for model in self._fleet.models()
                for place, offer in enumerate(model.menu.offers, 1)
                if model.builds[offer.name].stage != "failed"
            ],
            self._left,
            now_s,
            least_s=_LEAST_STAY * self._every_s,
        )

    async def _carry_out(self, plan: Plan) -> bool:
        """Free and load as `plan` says; False when it could not be done to the end.

        What fits is loaded before anything is freed, and a model's last variant goes last of all.
        """
        load, free = list(plan.load), list(plan.free)
        while (load or free) and not self._stopping:
            left = self._left
            room = math.inf if left is None else left - self.loaded_bytes
            fitting = [key for key in load if self._bytes(key) <= room]
            if fitting:
                load.remove(fitting[0])
                if not await self._load(fitting[0]):
                    return True  # what was freed for it may have to come back: plan again
            elif free:
                # The last variant of a model is the last to go.
                key = max(free, key=lambda key: len(self._fleet.model(key[0]).ready))
                free.remove(key)
                if not await self._free(key):
                    return False
            else:
                return False
        return True

    async def _load(self, key: Key) -> bool:
        name, variant = key
        model = self._fleet.model(name)
        build = model.builds[variant]
        loaded = await self._loading.prepared(model, build, self._settings)
        if loaded is None:
            return self._loaded(key)
        if model.builds.get(variant) is not build:  # it was removed, or taken off, meanwhile
            await asyncio.to_thread(loaded.close)
            return True
        self._loading.change(partial(model.adopt, variant, loaded))
        return self._loaded(key)

    def _loaded(self, key: Key) -> bool:
        name, variant = key
        if not self._fleet.model(name).is_ready(variant):
            self._ideal.cache_clear()  # it failed, and is no longer what anybody can want
            return False
        self._since_s[key] = time.monotonic()
        self._metrics.loaded(name, variant)
        for future in self._arrivals:
            if not future.done():
                future.set_result(None)
        self._arrivals.clear()
        return True

    async def _came(self) -> None:
        """Return when the next variant has come into memory."""
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals.append(came)
        await came

    async def _free(self, key: Key) -> bool:
        name, variant = key
        model = self._fleet.model(name)
        give_up_s = time.monotonic() + _DRAIN_S
        # A lane may take it for a request that needs it no more, at the last moment.
        for leave in (model.evict, model.retire):
            leave(variant)
            while self._in_use(name, variant):
                if self._stopping or time.monotonic() > give_up_s:
                    model.reinstate(variant)
                    return False
                await asyncio.sleep(POLL_S)
        del self._since_s[key]
        await asyncio.to_thread(model.free, variant)
        await asyncio.to_thread(memory.trim)
        self._metrics.evicted(name, variant)
        return True

    def _bytes(self, key: Key) -> int:
        name, variant = key
        card = self._fleet.model(name).builds[variant].entry.card
        return card.resident_bytes * self._settings.lanes

    def _decide_ideal(
        self, name: str, constraints: Constraints, rows: int
    ) -> tuple[Key, float] | None:
        """What would answer with everything loaded and nothing to do, and how much it is missed.

        Load is left out: whether a variant is loaded must not change how much it is wanted, or it
        would be evicted and loaded in turns.
        """
        model = self._fleet.model(name)
        whole = frozenset([v for v, build in model.builds.items() if build.stage != "failed"])
        snapshot = replace(idle(whole), overhead_ms=OVERHEAD_START_MS)
        decision = route(constraints, model.menu, snapshot, self._policy, rows)
        if decision.verdict != "accepted":
            return None
        return (name, decision.variant), 1.0 if len(decision.allowed) > 1 else _ALONE
