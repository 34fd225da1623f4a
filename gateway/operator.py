"""The operator: what those who run the server may change while it serves. Admin protocols call it.

Everything here runs on the event loop's thread, and returns when it has happened: a variant that
was enabled is warm or has failed, a model that was unloaded is out of memory. What is wanted is
kept in the state folder (`gateway.directives`), so that it outlives the process and other worker
processes follow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gateway import catalog, change, gently, intake, listing
from gateway.directives import Directives
from gateway.fleet import Fleet, ServedModel, VariantState
from gateway.listing import Listed
from gateway.metrics import Metrics
from gateway.residency import Residency
from gateway.watch import Changes, Watch
from router.errors import InvalidRequest, NotReady, UnknownVariant
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
        return await self._direct(model, lambda rollout: rollout.enable(variant), variant)

    async def disable(self, model: str, variant: str) -> Rollout:
        """Take `variant` out of service and out of memory.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is pinned.
        """
        return await self._direct(model, lambda rollout: rollout.disable(variant), variant)

    async def pin(self, model: str, variant: str | None) -> Rollout:
        """Let `variant` answer whoever names none; None lets go.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is disabled, or a shadow.
        """
        return await self._direct(model, lambda rollout: rollout.pin(variant), variant)

    async def canary(self, model: str, variant: str, share: float) -> Rollout:
        """Give `variant` that share, above 0 and up to 1, of the requests it may answer.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: the share is none, or too much with the other canaries'.
        """
        return await self._direct(model, lambda rollout: rollout.canary(variant, share), variant)

    async def shadow(self, model: str, variant: str, share: float) -> Rollout:
        """Run that share, above 0 and up to 1, of the requests on `variant` again, unseen.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: the share is none, or the variant is pinned.
        """
        return await self._direct(model, lambda rollout: rollout.shadow(variant, share), variant)

    async def alias(self, model: str, alias: str, variant: str | None) -> Rollout:
        """Let `alias` name `variant`; None takes the alias away.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is no name, or the one that is fixed.
        """
        if alias in self._fleet.model(model).states:
            raise InvalidRequest("alias", alias, f"a name that no variant of {model} has")
        return await self._direct(model, lambda rollout: rollout.alias(alias, variant), variant)

    async def remove(self, model: str, variant: str) -> None:
        """Delete `variant` from the store; it is freed once what was promised it has run.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            NotReady: the folder cannot be removed.
        """
        self._check_started()
        self._known(model, variant)
        async with self._looking:
            await asyncio.to_thread(intake.remove, self._watch.store, model, variant)
        await self.rescan()

    async def receive(self, model: str, variant: str, archive: Path) -> VariantState:
        """Put the build of a tar archive into the store as `variant`, new or in another's place.

        It is checked before it is moved into place, loaded before it serves, and where it cannot be
        the one before it serves on.

        Raises:
            InvalidRequest: it is no whole build of that variant; says why.
        """
        self._check_started()
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
            changes = await gently.run(self._watch.look, self._fleet.failed())
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
            for variant in gone:
                self._metrics.unwatch_variant(name, variant)
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
        for variant, why in broken.items():
            change.spoilt(model, variant, why)
        for variant in gone:
            change.gone(model, variant)
        change.direct(model, rollout, evidence)
        self._fleet.changed()

    def _known(self, model: str, variant: str) -> None:
        """Make sure that the store holds `variant`.

        Raises:
            UnknownModel, UnknownVariant: it does not.
        """
        served = self._fleet.everything().get(model)
        if served is None:
            known = self._fleet.broken.get(model) or self._fleet.model(model).states
        else:
            known = served.states
        if variant not in known:
            names = ", ".join(sorted(known))
            raise UnknownVariant(f"{model} has no variant {variant!r}; there are {names}")

    def _check_started(self) -> None:
        """Make sure that what is to be changed is there.

        Raises:
            NotReady: the first variants are still being loaded.
        """
        if self._task is None:
            raise NotReady("the server is still starting")

    def _sound(self, model: str, rollout: Rollout) -> Rollout:
        """`rollout`, which leaves a variant for requests that name none.

        Raises:
            InvalidRequest: it leaves none, and the model is not unloaded either.
        """
        served = self._fleet.everything().get(model)
        left = set(served.builds if served is not None else ()) - rollout.apart()
        if served is not None and served.builds and rollout.serves and not left:
            expected = f"one that leaves a variant of {model} to answer; or unload the model"
            raise InvalidRequest("rollout", "none", expected)
        return rollout

    async def _direct(
        self, model: str, alter: Callable[[Rollout], Rollout], variant: str | None = None
    ) -> Rollout:
        self._check_started()
        if variant is not None:
            self._known(model, variant)
        elif model not in self.models():
            self._fleet.model(model)  # raises
        async with self._looking:
            rollout = await asyncio.to_thread(
                self._directives.change, model, lambda before: self._sound(model, alter(before))
            )
            await self._apply(model, Changes())
        await self._residency.settled()
        return rollout


def _too_early(_: Callable[[], None]) -> None:
    raise NotReady("the server is still starting")
