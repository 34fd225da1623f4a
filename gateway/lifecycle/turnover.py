"""Turnover: how variants come into memory and leave it, one at a time.

A change never takes a variant away from a request that was promised it, and never goes over the
limit on the way: a variant leaves the menu first, what is queued for it still runs, and only then
are its programs closed and others loaded into the room. A model is without any variant for a
moment only where the limit does not hold its old and its new one side by side.

It decides nothing but the order: `gateway.lifecycle.residency` says what comes and what goes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from gateway import memory
from gateway.lifecycle import change, gently
from gateway.lifecycle.fleet import Fleet
from gateway.lifecycle.limit import Limit
from gateway.lifecycle.loader import POLL_S, Loader
from gateway.metrics import Metrics
from router.residency import Key, Plan

_LOG = logging.getLogger(__name__)

# An evicted variant that is still needed after this long, because the queue is that long, is kept:
# under such a load no change would help.
_DRAIN_S = 10.0


class Turnover:
    """Carries out what is planned. Everything runs on the event loop's thread.

    Args:
        since_s: when what is loaded came into memory; kept here.
        in_use: whether a request that is queued or running was promised a variant of a model.
        replaced: is told of a variant of a model that another build serves from now on.
        loaded: is called when a variant has come into memory.
        failed: is called when one could not.
    """

    def __init__(
        self,
        fleet: Fleet,
        limit: Limit,
        loader: Loader,
        metrics: Metrics,
        since_s: dict[Key, float],
        *,
        in_use: Callable[[str, str], bool],
        replaced: Callable[[str, str], None],
        loaded: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._limit = limit
        self._loader = loader
        self._metrics = metrics
        self._since_s = since_s
        self._in_use = in_use
        self._replaced = replaced
        self._loaded = loaded
        self._failed = failed

    async def replace_one(self) -> bool:
        """Let one incoming build take its place, or give it up; False where there is none."""
        for model in self._fleet.models():
            for variant, build in model.incoming.items():
                need = build.entry.card.resident_bytes * self._limit.settings.lanes
                current = model.builds[variant]
                if need > self._limit.room:
                    # Without room for both the old one goes first.
                    self._loader.change(partial(change.withdraw, model, variant))
                    self._since_s.pop((model.name, variant), None)
                    return True
                loaded = await self._loader.prepared(model, build, self._limit.settings)
                if model.incoming.get(variant) is not build or model.builds[variant] is not current:
                    if loaded is not None:  # the store or the operator changed its mind meanwhile
                        await asyncio.to_thread(loaded.close)
                    return True
                if loaded is None:
                    del model.incoming[variant]
                    change.keep(model, variant, build.why)
                    return True
                model.not_worse = await gently.run(change.evidence_with, model, variant)
                self._loader.change(partial(change.switch, model, variant, loaded))
                self._replaced(model.name, variant)
                self._since_s[model.name, variant] = time.monotonic()
                self._metrics.loaded(model.name, variant)
                self._metrics.swapped(model.name, variant)
                _LOG.warning("%s/%s: a new build serves", model.name, variant)
                return True
        return False

    async def carry_out(self, plan: Plan) -> bool:
        """Free and load as `plan` says; False when it could not be done to the end.

        What fits is loaded before anything is freed, and a model's last variant goes last of all.
        """
        load, free = list(plan.load), list(plan.free)
        while (load or free) and not self._loader.stopping:
            room = self._limit.room
            fitting = [key for key in load if self._limit.bytes_of(key) <= room]
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
        loaded = await self._loader.prepared(model, build, self._limit.settings)
        if loaded is None:
            return self.arrived(key)
        if model.builds.get(variant) is not build:  # it was removed, or taken off, meanwhile
            await asyncio.to_thread(loaded.close)
            return True
        self._loader.change(partial(model.adopt, variant, loaded))
        return self.arrived(key)

    def arrived(self, key: Key) -> bool:
        """Note that `key` was loaded; False where it has failed."""
        name, variant = key
        if not self._fleet.model(name).is_ready(variant):
            self._failed()
            return False
        self._since_s[key] = time.monotonic()
        self._metrics.loaded(name, variant)
        self._loaded()
        return True

    async def _free(self, key: Key) -> bool:
        name, variant = key
        model = self._fleet.model(name)
        give_up_s = time.monotonic() + _DRAIN_S
        # A lane may take it for a request that needs it no more, at the last moment.
        for leave in (model.evict, model.retire):
            leave(variant)
            while self._in_use(name, variant):
                if self._loader.stopping or time.monotonic() > give_up_s:
                    model.reinstate(variant)
                    return False
                await asyncio.sleep(POLL_S)
        del self._since_s[key]
        await asyncio.to_thread(model.free, variant)
        await asyncio.to_thread(memory.trim)
        self._metrics.evicted(name, variant)
        return True
