"""The follower: keeps what is served in line with the store and with what is wanted of it.

Both may change by another's hand: builds come into the store, and another worker process is told
what is wanted. So both are looked at again and again, one look at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial

from gateway.lifecycle import catalog, change, gently, named
from gateway.lifecycle.directives import Directives
from gateway.lifecycle.fleet import Fleet, ServedModel
from gateway.lifecycle.watch import Changes, Watch
from gateway.metrics import Metrics
from router.errors import NotReady
from router.rollout import Rollout

_LOG = logging.getLogger(__name__)


class Follower:
    """Brings models in line. Everything runs on the event loop's thread.

    Args:
        watch: on the store; made before the fleet, so that nothing in between is missed.
        fleet: what is served.
        directives: where the operator's wishes are kept.
        changed: is called when a model may have to be loaded or freed.
        watch_model: is told of a model whose variants are others now.

    Attributes:
        looking: held by whoever looks at the store, or alters it.
        unreadable: why the store could not be read, when it could not at the last look.
    """

    def __init__(
        self,
        watch: Watch,
        fleet: Fleet,
        directives: Directives,
        metrics: Metrics,
        changed: Callable[[], None],
        watch_model: Callable[[ServedModel], None],
    ) -> None:
        self._watch = watch
        self._fleet = fleet
        fleet.fixed = True
        self._directives = directives
        self._metrics = metrics
        self._changed = changed
        self._watch_model = watch_model
        for name, model in fleet.everything().items():
            for variant in model.broken:
                self._watch.doubt((name, variant))
            for variant in model.builds:
                named.warn_of_alias(name, variant, model.rollout)
        for name, whys in fleet.broken.items():
            for variant in whys:
                self._watch.doubt((name, variant))
        self.looking = asyncio.Lock()
        self.unreadable = ""
        self._task: asyncio.Task[None] | None = None
        self._change: Callable[[Callable[[], None]], None] = _too_early

    def start(self, change: Callable[[Callable[[], None]], None], every_s: float) -> None:
        """Look at the store, and at what other processes were told, again and again.

        Args:
            change: runs what it is given while no lane looks at the fleet.
        """
        self._change = change
        self._task = asyncio.create_task(self._run(every_s))
        self._fleet.fixed = False

    def stop(self) -> None:
        """Change nothing any more."""
        if self._task is not None:
            self._task.cancel()

    def check_started(self) -> None:
        """Make sure that what is to be changed is there.

        Raises:
            NotReady: the first variants are still being loaded.
        """
        if self._task is None:
            raise NotReady("the server is still starting")

    async def look(self) -> None:
        """Look at the store, and at what other processes were told, now."""
        self.check_started()
        async with self.looking:
            changes = await gently.run(self._watch.look, self._fleet.doubtful())
            self._say(changes.unreadable)
            directed = await asyncio.to_thread(self._directives.look)
            for name in sorted(_touched(changes) | directed):
                await self._apply(name, changes)

    async def direct(self, model: str, alter: Callable[[Rollout], Rollout]) -> Rollout:
        """Alter what is wanted of `model`; returns that, once it is known what to load and free."""
        async with self.looking:
            rollout = await asyncio.to_thread(self._directives.change, model, alter)
            await self._apply(model, Changes())
        return rollout

    async def _run(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.look()
            except Exception:
                _LOG.exception("the store could not be looked at")

    def _say(self, unreadable: str) -> None:
        if unreadable != self.unreadable:
            if unreadable:
                _LOG.error("%s; what is loaded serves on", unreadable)
            else:
                _LOG.warning("the store can be read again")
            self.unreadable = unreadable
            self._metrics.store(not unreadable)

    async def _apply(self, name: str, changes: Changes) -> None:
        """Bring one model in line with the store and with what is wanted."""
        found = {v: entry for (model, v), entry in changes.found.items() if model == name}
        broken = {v: why for (model, v), why in changes.broken.items() if model == name}
        gone = {v for model, v in changes.gone if model == name}
        rollout = self._directives.of(name)
        model = self._fleet.everything().get(name)
        if model is None or not (model.builds or model.held):
            whys = {**self._fleet.broken.get(name, {}), **broken}
            whys = {v: why for v, why in whys.items() if v not in gone and v not in found}
            if found:
                kept, odd = catalog.consistent(found)
                make = partial(
                    ServedModel, kept, self._fleet.terms, broken={**whys, **odd},
                    rollout=rollout, late=True,
                )  # fmt: skip
                model = await gently.run(make)
                self._fleet.broken.pop(name, None)
                self._change(partial(self._fleet.add, model))
            elif whys:
                self._fleet.broken[name] = whys
            else:
                self._fleet.broken.pop(name, None)
        else:
            evidence = await gently.run(change.evidence_after, model, found, gone)
            self._change(partial(self._alter, model, found, broken, gone, rollout, evidence))
        if model is not None:
            self._watch_model(model)
            if not (model.builds or model.broken or model.held):
                self._change(partial(self._fleet.remove, model))
        self._changed()

    def _alter(
        self,
        model: ServedModel,
        found: Mapping[str, catalog.Entry],
        broken: Mapping[str, str],
        gone: Collection[str],
        rollout: Rollout,
        evidence: dict[str, dict[str, float]],
    ) -> None:
        for variant, entry in found.items():
            change.found(model, variant, entry)
            named.warn_of_alias(model.name, variant, rollout)
        for variant, why in broken.items():
            change.spoilt(model, variant, why)
        for variant in gone:
            change.gone(model, variant)
        change.direct(model, rollout, evidence)
        self._fleet.changed()


def _touched(changes: Changes) -> set[str]:
    return {model for model, _ in (*changes.found, *changes.broken, *changes.gone)}


def _too_early(_: Callable[[], None]) -> None:
    raise NotReady("the server is still starting")
