"""The operator: what those who run the server may change while it serves. Admin protocols call it.

Everything here runs on the event loop's thread, and returns when it has happened: a variant that
was enabled is warm or has failed, a model that was unloaded is out of memory. What is wanted is
kept in the state folder (`gateway.directives`), so that it outlives the process and other worker
processes follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from gateway.directives import Directives
from gateway.fleet import Fleet
from router.errors import NotReady
from router.rollout import Rollout

# As the Open Inference Protocol's repository extension calls them.
ListedState = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


class Listed(NamedTuple):
    """One variant in the repository's index: its model, its name, its state and the reason."""

    name: str
    version: str
    state: ListedState
    reason: str


class Operator:
    """What may be changed at runtime.

    Args:
        fleet: what is served.
        directives: where the operator's wishes are kept.
    """

    def __init__(self, fleet: Fleet, directives: Directives) -> None:
        self._fleet = fleet
        self._directives = directives

    def index(self, *, ready_only: bool = False) -> list[Listed]:
        """Every variant in the store, as v2's repository index lists it.

        Args:
            ready_only: list only those that a request can be answered by now.
        """
        listed = [
            Listed(model.name, state.variant, _LISTED.get(state.state, "UNAVAILABLE"), state.why)
            for model in self._fleet.models()
            for state in model.states.values()
        ]
        return [one for one in listed if not ready_only or one.state == "READY"]

    def describe(self, model: str) -> dict[str, Any]:
        """Everything there is to know of one model's variants, as plain JSON values.

        Raises:
            UnknownModel: there is none.
        """
        served = self._fleet.model(model)
        return {
            "name": served.name,
            "reference": served.reference,
            "rollout": self._directives.of(model).model_dump(mode="json"),
            "variants": {
                name: {"state": state.state, "why": state.why}
                for name, state in served.states.items()
            },
        }

    async def load(self, model: str) -> None:
        """Serve `model`, as v2's repository load asks: all that the store holds of it now.

        Raises:
            UnknownModel: the store holds none of that name.
            NotReady: nothing of it could be loaded; says why.
        """
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
        return await self._direct(model, lambda rollout: rollout.enable(variant))

    async def disable(self, model: str, variant: str) -> Rollout:
        """Take `variant` out of service and out of memory.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is pinned.
        """
        return await self._direct(model, lambda rollout: rollout.disable(variant))

    async def pin(self, model: str, variant: str | None) -> Rollout:
        """Let `variant` answer whoever names none; None lets go.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is disabled, or a shadow.
        """
        return await self._direct(model, lambda rollout: rollout.pin(variant))

    async def canary(self, model: str, variant: str, share: float) -> Rollout:
        """Give `variant` that share, above 0 and up to 1, of the requests it may answer.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: the share is none, or too much with the other canaries'.
        """
        return await self._direct(model, lambda rollout: rollout.canary(variant, share))

    async def shadow(self, model: str, variant: str, share: float) -> Rollout:
        """Run that share, above 0 and up to 1, of the requests on `variant` again, unseen.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: the share is none, or the variant is pinned.
        """
        return await self._direct(model, lambda rollout: rollout.shadow(variant, share))

    async def alias(self, model: str, alias: str, variant: str | None) -> Rollout:
        """Let `alias` name `variant`; None takes the alias away.

        Raises:
            UnknownModel, UnknownVariant: the store holds none of that name.
            InvalidRequest: it is no name, or the one that is fixed.
        """
        return await self._direct(model, lambda rollout: rollout.alias(alias, variant))

    async def _direct(self, model: str, alter: Callable[[Rollout], Rollout]) -> Rollout:
        self._fleet.model(model)
        return await asyncio.to_thread(self._directives.change, model, alter)


_LISTED: dict[str, ListedState] = {"ready": "READY", "loading": "LOADING", "draining": "UNLOADING"}
