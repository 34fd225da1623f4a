"""How many examples a law is held to: a quarter on every run, and all of them in `make laws`."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

EVERY_RUN, WHOLE = "every-run", "whole"

# How long an example takes says how busy the machine is, not whether a law holds.
_ANY_SPEED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
_FEWEST = 10


def register() -> None:
    """Make both profiles known, and use the one for every run unless an option names another."""
    settings.register_profile(EVERY_RUN, max_examples=25, **_ANY_SPEED)
    settings.register_profile(WHOLE, max_examples=400, **_ANY_SPEED)
    settings.load_profile(EVERY_RUN)


def examples(count: int, **more: Any) -> settings:
    """So many for one law, and `more` of hypothesis' settings."""
    whole = settings.get_current_profile_name() == WHOLE
    return settings(max_examples=count if whole else max(_FEWEST, count // 4), **more)
