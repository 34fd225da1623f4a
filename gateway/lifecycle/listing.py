"""The listing: what there is in the store and what it is doing, for those who ask."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from gateway.lifecycle.fleet import Fleet

# As the Open Inference Protocol's repository extension calls them.
ListedState = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


class Listed(NamedTuple):
    """One variant in the repository's index: its model, its name, its state and the reason."""

    name: str
    version: str
    state: ListedState
    reason: str


_LISTED: dict[str, ListedState] = {"ready": "READY", "loading": "LOADING"}


def index(fleet: Fleet, *, ready_only: bool) -> list[Listed]:
    """Every variant in the store, or those that are ready."""
    listed = [
        Listed(name, state.variant, _LISTED.get(state.state, "UNAVAILABLE"), state.why)
        for name, model in sorted(fleet.everything().items())
        for state in model.states.values()
    ]
    for name, whys in sorted(fleet.broken.items()):
        listed.extend([Listed(name, each, "UNAVAILABLE", why) for each, why in whys.items()])
    return [one for one in listed if not ready_only or one.state == "READY"]


def describe(fleet: Fleet, model: str) -> dict[str, Any]:
    """Everything there is to know of one model, as plain JSON values.

    Raises:
        UnknownModel: there is none.
        NotReady: nothing of it is whole.
    """
    served = fleet.everything().get(model)
    if served is None:
        served = fleet.model(model)
    rollout = served.rollout
    return {
        "name": model,
        "reference": served.reference,
        "rollout": rollout.model_dump(mode="json"),
        "variants": {
            name: {
                "state": state.state,
                "why": state.why,
                "replacing": name in served.incoming,
                "build": served.builds[name].entry.digest if name in served.builds else None,
            }
            for name, state in served.states.items()
        },
    }
