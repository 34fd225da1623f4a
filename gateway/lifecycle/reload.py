"""Reload: settings that change while the server runs, and those that need a restart.

The same sources are read again: command line, environment, file. What they say is validated as a
whole before any of it holds; where it is not valid, everything stays as it is.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.settings import Settings

# What is asked anew for every request, or at every look. Everything else is part of what was built
# when the server started: ports, lanes, programs, tables by percentile.
LIVE = frozenset(
    {
        "accuracy_margin",
        "default_max_cost_usd_per_million",
        "default_max_latency_ms",
        "default_min_accuracy",
        "default_optimize",
        "max_queue",
        "memory_limit_mb",
        "model_weights",
        "residency_seconds",
        "usd_per_lane_hour",
    }
)


class Reloaded(NamedTuple):
    """What came of it.

    Attributes:
        changed: settings that hold from now on.
        restart: settings that are changed and need a restart.
        certificate: whether the certificate's files were read again.
    """

    changed: tuple[str, ...]
    restart: tuple[str, ...]
    certificate: bool = False


def merged(now: Settings, read: Settings) -> tuple[Settings, Reloaded]:
    """The settings that hold once `read` was read where `now` holds, and what that changes."""
    names = [name for name in Settings.model_fields if getattr(now, name) != getattr(read, name)]
    # The number of cores that a worker was given is not in any of the sources.
    told = [name for name in names if name in read.model_fields_set or name in LIVE]
    live = tuple([name for name in told if name in LIVE])
    restart = tuple([name for name in told if name not in LIVE])
    settings = now.model_copy(update={name: getattr(read, name) for name in live})
    return settings, Reloaded(live, restart)
