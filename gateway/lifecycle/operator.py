"""The operator: what those who run the server may change while it serves. Admin protocols call it.

Everything here runs on the event loop's thread, and returns when it has happened: a variant that
was enabled is warm or has failed, a model that was unloaded is out of memory. What is wanted is
kept in the state folder (`gateway.lifecycle.directives`), so that it outlives the process and other
worker processes follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.lifecycle import intake, listing, named
from gateway.lifecycle.directives import Directives
from gateway.lifecycle.fleet import Fleet, ServedModel, VariantState
from gateway.lifecycle.follower import Follower
from gateway.lifecycle.listing import Listed
from gateway.lifecycle.residency import Residency
from gateway.lifecycle.watch import Watch
from gateway.metrics import Metrics
from router.errors import InvalidRequest, NotReady
from router.rollout import Rollout


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
        self._follower = Follower(watch, fleet, directives, metrics, residency.look, watch_model)

    def start(self, change: Callable[[Callable[[], None]], None], every_s: float) -> None:
        """Look at the store, and at what other processes were told, again and again.

        Args:
            change: runs what it is given while no lane looks at the fleet.
        """
        self._follower.start(change, every_s)

    def stop(self) -> None:
        """Change nothing any more."""
        self._follower.stop()

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
        await self._follower.look()
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
        self._follower.check_started()
        self._check_own()
        mentioned = self._directives.of(model).mentions(variant)
        if not mentioned:
            named.check_known(self._fleet, model, variant)
        async with self._follower.looking:
            await asyncio.to_thread(intake.remove, self._watch.store, model, variant)
        await self._follower.look()
        if mentioned:
            await self._follower.direct(model, lambda rollout: rollout.forget(variant))
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
        await self._follower.look()
        if self._follower.unreadable:
            raise NotReady(self._follower.unreadable)
        async with self._follower.looking:
            await asyncio.to_thread(
                intake.receive, self._watch.store, model, variant, archive, self._watch.check
            )
        await self.rescan()
        return self._fleet.held(model).states[variant]

    async def rescan(self) -> None:
        """Look at the store now; returns when all that is new is warm, or has failed."""
        await self._follower.look()
        await self._residency.settled()

    def _check_own(self) -> None:
        """Make sure that what is put into the store stays there.

        Raises:
            InvalidRequest: it is a copy of one elsewhere, and becomes like that again.
        """
        origin = self._watch.origin
        if origin is not None:
            expected = "a store that is a folder; variants are put into, or deleted from, the URL"
            raise InvalidRequest("models", origin.url, expected)

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
        self._follower.check_started()
        if model not in self.models():
            self._fleet.model(model)  # raises

        def sound(before: Rollout) -> Rollout:
            after = alter(before)
            named.check_some_left(self._fleet, model, after)
            return after

        rollout = await self._follower.direct(model, sound)
        await self._residency.settled()
        return rollout
