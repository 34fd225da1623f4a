"""The lifecycle of one build of a variant, as one table, and next_action().

    waiting ── load ──> loading ── warmed ──> ready ── leave ──> leaving ── retire ──> retired
       ^ ^                 │                    ^ <──── stay ───────┘                     │ │
       │ │               failed                 └────────────── stay ─────────────────────┘ │
       │ └── retry ──── failed                                                              │
       └───────────────────────────────── free ─────────────────────────────────────────────┘
    waiting, failed ── drop ──> gone

A build is what lay in a variant's folder when its digests were checked. It serves only when it is
warm, and it is only warmed after it is loaded: nothing else leads to `ready`. What leaves goes in
three steps, none of which takes it from a request that it was promised to. *Leaving*: nothing new
is routed to it, and what is queued for it still runs. *Retired*: nothing queued needs it, so no
lane may start it any more, which one might have done for a request that has other choices.
*Freed*, when no lane holds a lease of it.

What comes next follows from what is wanted of it, and from whether anybody still uses it. Two
builds of one variant each have their own state, side by side, while one replaces the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

State = Literal["waiting", "loading", "ready", "leaving", "retired", "failed", "gone"]
Event = Literal["load", "warmed", "failed", "leave", "stay", "retire", "free", "retry", "drop"]
Wanted = Literal["serve", "rest", "drop"]
"""To answer requests; to stay in the store alone; to be forgotten."""

STATES: tuple[State, ...] = get_args(State)

TABLE: Mapping[State, Mapping[Event, State]] = {
    "waiting": {"load": "loading", "drop": "gone"},
    "loading": {"warmed": "ready", "failed": "failed"},
    "ready": {"leave": "leaving"},
    "leaving": {"stay": "ready", "retire": "retired"},
    "retired": {"stay": "ready", "free": "waiting"},
    "failed": {"retry": "waiting", "drop": "gone"},
    "gone": {},
}

# Requests may be routed to these; lanes may run these; these take memory.
ROUTED = frozenset[State](["ready"])
RUN = frozenset[State](["ready", "leaving"])
HELD = frozenset[State](["ready", "leaving", "retired"])


class WrongState(Exception):
    """The event cannot happen to a build in that state."""


def after(state: State, event: Event) -> State:
    """The state that `event` leads to.

    Raises:
        WrongState: it cannot happen in `state`.
    """
    try:
        return TABLE[state][event]
    except KeyError:
        raise WrongState(f"{event} cannot happen to a build that is {state}") from None


def next_action(state: State, wanted: Wanted, in_use: bool) -> Event | None:
    """What to do to a build next; None where there is nothing to do but wait, or nothing at all.

    Args:
        in_use: whether a request that is queued or running still needs it. Nothing is taken away
            while one does, however long that is.
    """
    match state:
        case "waiting" if wanted == "serve":
            return "load"
        case "ready" if wanted != "serve":
            return "leave"
        case "leaving" | "retired" if wanted == "serve":
            return "stay"
        case "leaving" if not in_use:
            return "retire"
        case "retired" if not in_use:
            return "free"
        case "waiting" | "failed" if wanted == "drop":
            return "drop"
    return None
