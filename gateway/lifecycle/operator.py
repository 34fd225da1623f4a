"""The operator: what those who run the server may change while it serves. Admin protocols call it.

Everything here runs on the event loop's thread, and returns when it has happened: a variant that
was enabled is warm or has failed, a model that was unloaded is out of memory. What is wanted is
kept in the state folder (`gateway.lifecycle.directives`), so that it outlives the process and other
worker processes follow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gateway.lifecycle import catalog, change, gently, intake, listing, named
from gateway.lifecycle.directives import Directives
from gateway.lifecycle.fleet import Fleet, ServedModel, VariantState
from gateway.lifecycle.listing import Listed
from gateway.lifecycle.residency import Residency
from gateway.lifecycle.watch import Changes, Watch
from gateway.metrics import Metrics
from router.errors import InvalidRequest, NotReady
from router.rollout import Rollout

_LOG = logging.getLogger(__name__)


class Operator:
    """What may be changed at runtime.

    Args:
        watch: on the store; made before the fleet, so that nothing in between is missed.
        fleet: what is served.
        residency: loads and frees.
        directives: where the operator's wishes are kept.
        watch_model: is told of a model whose variants are others now.
    """

    def __init__(
        self,
        watch: Watch,
        fleet: Fleet,
        residency: Residency,
        directives: Directives,
        metrics: Metrics,
        watch_model: Callable[[ServedModel], None],
    ) -> None:
        self._watch = watch
        self._fleet = fleet
        self._residency = residency
        self._directives = directives
        self._metrics = metrics
        self._watch_model = watch_model
        for name, model in fleet.everything().items():
            for variant in model.broken:
                self._watch.doubt((name, variant))
            for variant in model.builds:
                named.warn_of_alias(name, variant, model.rollout)
        for name, whys in fleet.broken.items():
            for variant in whys:
                self._watch.doubt((name, variant))
        self._looking = asyncio.Lock()
        self._unreadable = ""
        self._task: asyncio.Task[None] | None = None
        self._change: Callable[[Callable[[], None]], None] = _too_early

    def start(self, change: Callable[[Callable[[], None]], None], every_s: float) -> None:
        """Look at the store, and at what other processes were told, again and again.

        Args:
            change: runs what it is given while no lane looks at the fleet.
        """
        self._change = change
        self._task = asyncio.create_task(self._run(every_s))

    def stop(self) -> None:
        """Change nothing any more."""
        if self._task is not None:
            self._task.cancel()

    def index(self, *, ready_only: bool = False) -> list[Listed]:
        """Every variant in the store, as v2's repository index lists it.

        Args:
            ready_only: list only those that a request can be answered by now.
        """
        return listing.index(self._fleet, ready_only=ready_only)

    def describe(self, model: str) -> dict[str, Any]:
        """Everything there is to know of one model's variants, as plain JSON values.

        Raises:
            UnknownModel: there is none.
        """
        return listing.describe(self._fleet, model)

    def models(self) -> list[str]:
        """Every model that the store holds, served or not."""
        return sorted({*self._fleet.everything(), *self._fleet.broken})

    async def load(self, model: str) -> None:
        """Serve `model`, as v2's repository load asks: all that the store holds of it now.

        Raises:
            UnknownModel: the store holds none of that name.
            NotReady: nothing of it could be loaded; says why.
        """
        await self._look()
        await self._direct(model, lambda rollout: rollout.serve(True))
        served = self._fleet.model(model)
        if not served.ready:
            whys = "; ".join(f"{one.variant}: {one.why}" for one in served.states.values())
            raise NotReady(f"nothing of {model} serves: {whys}")

    async def unload(self, model: str) -> None:
        """Take `model` out of service and out of memory, once what is queued for it has run.

        Raises:
            UnknownModel: there is none.
        """
        await self._direct(model, lambda rollout: rollout.serve(False))

    async def enable(self, model: str, variant: str) -> Rollout:
        """Let `variant` serve as the others do.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
        """
        return await self._direct_variant(model, variant, Rollout.enable, takes_back=True)

    async def disable(self, model: str, variant: str) -> Rollout:
        """Take `variant` out of service and out of memory.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is pinned.
        """
        return await self._direct_variant(model, variant, Rollout.disable, takes_back=True)

    async def pin(self, model: str, variant: str | None) -> Rollout:
        """Let `variant` answer whoever names none; None lets go.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is disabled, or a shadow.
        """
        if variant is None:
            return await self._direct(model, lambda rollout: rollout.pin(None))
        return await self._direct_variant(model, variant, Rollout.pin)

    async def canary(self, model: str, variant: str, share: float) -> Rollout:
        """Give `variant` that share, above 0 and up to 1, of the requests it may answer.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: the share is none, or too much with the other canaries'.
        """
        return await self._direct_variant(
            model, variant, lambda rollout, name: rollout.canary(name, share)
        )

    async def shadow(self, model: str, variant: str, share: float) -> Rollout:
        """Run that share, above 0 and up to 1, of the requests on `variant` again, unseen.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: the share is none, the variant is pinned, or the memory limit has no
                room for it.
        """

        def alter(rollout: Rollout, name: str) -> Rollout:
            after = rollout.shadow(name, share)
            self._residency.check_shadow(model, name, after)
            return after

        return await self._direct_variant(model, variant, alter)

    async def alias(self, model: str, alias: str, variant: str | None) -> Rollout:
        """Let `alias` name `variant`; None takes the alias away.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is no name, or the one that is fixed.
        """
        if variant is None:
            return await self._direct(model, lambda rollout: rollout.alias(alias, None))
        if alias in self._fleet.model(model).states:
            raise InvalidRequest("alias", alias, f"a name that no variant of {model} has")
        return await self._direct_variant(
            model, variant, lambda rollout, name: rollout.alias(alias, name)
        )

    async def remove(self, model: str, variant: str) -> None:
        """Delete `variant`, which no alias stands for, from the store, and what was wanted of it;
        it is freed once what was promised it has run.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name, and nothing was wanted
                of one.
            InvalidRequest: the store is a copy of one elsewhere.
            NotReady: the folder cannot be removed, or what is wanted not be kept.
        """
        self._check_started()
        self._check_own()
        mentioned = self._directives.of(model).mentions(variant)
        if not mentioned:
            named.check_known(self._fleet, model, variant)
        async with self._looking:
            await asyncio.to_thread(intake.remove, self._watch.store, model, variant)
        await self._look()
        if mentioned:
            async with self._looking:
                await asyncio.to_thread(
                    self._directives.change, model, lambda rollout: rollout.forget(variant)
                )
                await self._apply(model, Changes())
        await self._residency.settled()

    async def receive(self, model: str, variant: str, archive: Path) -> VariantState:
        """Put the build of a tar archive into the store as `variant`, new or in another's place.

        It is checked before it is moved into place, loaded before it serves, and where it cannot be
        the one before it serves on.

        Raises:
            InvalidRequest: it is no whole build of that variant; says why. Or the store is a copy.
            NotReady: the store cannot be read or written.
        """
        self._check_own()
        await self._look()
        if self._unreadable:
            raise NotReady(self._unreadable)
        async with self._looking:
            await asyncio.to_thread(
                intake.receive, self._watch.store, model, variant, archive, self._watch.check
            )
        await self.rescan()
        return self._fleet.held(model).states[variant]

    async def rescan(self) -> None:
        """Look at the store now; returns when all that is new is warm, or has failed."""
        await self._look()
        await self._residency.settled()

    async def _run(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._look()
            except Exception:
                _LOG.exception("the store could not be looked at")

    async def _look(self) -> None:
        self._check_started()
        async with self._looking:
            changes = await gently.run(self._watch.look, self._fleet.doubtful())
            self._say(changes.unreadable)
            directed = await asyncio.to_thread(self._directives.look)
            for name in sorted(self._changed(changes) | directed):
                await self._apply(name, changes)

    def _say(self, unreadable: str) -> None:
        if unreadable != self._unreadable:
            if unreadable:
                _LOG.error("%s; what is loaded serves on", unreadable)
            else:
                _LOG.warning("the store can be read again")
            self._unreadable = unreadable
            self._metrics.store(not unreadable)

    @staticmethod
    def _changed(changes: Changes) -> set[str]:
        return {model for model, _ in (*changes.found, *changes.broken, *changes.gone)}

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
        self._residency.look()

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

    def _check_own(self) -> None:
        """Make sure that what is put into the store stays there.

        Raises:
            InvalidRequest: it is a copy of one elsewhere, and becomes like that again.
        """
        origin = self._watch.origin
        if origin is not None:
            expected = "a store that is a folder; variants are put into, or deleted from, the URL"
            raise InvalidRequest("models", origin.url, expected)

    def _check_started(self) -> None:
        """Make sure that what is to be changed is there.

        Raises:
            NotReady: the first variants are still being loaded.
        """
        if self._task is None:
            raise NotReady("the server is still starting")

    async def _direct_variant(
        self,
        model: str,
        variant: str,
        alter: Callable[[Rollout, str], Rollout],
        *,
        takes_back: bool = False,
    ) -> Rollout:
        """Alter what is wanted of the variant that `variant` names.

        Args:
            takes_back: a variant that is not in the store any more is one, if anything is wanted of
                it.
        """
        rollout = self._directives.of(model)
        name = named.resolved(self._fleet, model, variant, rollout)
        if not (takes_back and model in self.models() and rollout.mentions(name)):
            named.check_known(self._fleet, model, name)
        return await self._direct(model, lambda before: alter(before, name))

    async def _direct(self, model: str, alter: Callable[[Rollout], Rollout]) -> Rollout:
        self._check_started()
        if model not in self.models():
            self._fleet.model(model)  # raises

        def sound(before: Rollout) -> Rollout:
            after = alter(before)
            named.check_some_left(self._fleet, model, after)
            return after

        async with self._looking:
            rollout = await asyncio.to_thread(self._directives.change, model, sound)
            await self._apply(model, Changes())
        await self._residency.settled()
        return rollout


def _too_early(_: Callable[[], None]) -> None:
    raise NotReady("the server is still starting")
