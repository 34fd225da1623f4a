"""Room for shadows: what they take of the memory limit, which is kept free for them."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.lifecycle.fleet import Fleet
from gateway.settings import Settings
from router.errors import InvalidRequest
from router.rollout import Rollout


def shadows_bytes(fleet: Fleet, rollouts: Mapping[str, Rollout] | None = None) -> int:
    """What the shadows of a fleet take by their cards, loaded or not: one program each.

    Args:
        rollouts: by model; by default those that hold.
    """
    return sum(
        build.entry.card.resident_bytes
        for name, model in fleet.everything().items()
        for variant in (model.rollout if rollouts is None else rollouts[name]).shadows
        if (build := model.builds.get(variant)) is not None
    )


def check_shadow(
    fleet: Fleet, settings: Settings, limit: int, model: str, variant: str, rollout: Rollout
) -> None:
    """Make sure that there is room for `variant` of `model` as a shadow, where `rollout` holds.

    Beside it come the other shadows and one variant of every model.

    Args:
        limit: what this process may take, in bytes.

    Raises:
        InvalidRequest: there is none.
    """
    rollouts = {name: each.rollout for name, each in fleet.everything().items()}
    rollouts[model] = rollout
    shadows = shadows_bytes(fleet, rollouts)
    least = 0
    for each in fleet.models():
        absent = rollouts[each.name].absent()
        sizes = [
            build.entry.card.resident_bytes
            for name, build in each.builds.items()
            if name not in absent and build.stage != "failed"
        ]
        least += min(sizes, default=0) * settings.lanes
    if shadows + least > limit:
        limit_mb, shadows_mb, least_mb = (
            f"{each * settings.workers / 1e6:.10g}" for each in (limit, shadows, least)
        )
        expected = (
            f"one that memory_limit_mb, {limit_mb}, has room for: with it shadows take "
            f"{shadows_mb} MB, and one variant of every model at least {least_mb} MB"
        )
        raise InvalidRequest("shadow", variant, expected)
