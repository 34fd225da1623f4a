"""The table of a build's states: a way out of every one, and no way to serve but through warmth."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.lifecycle import (
    HELD,
    ROUTED,
    RUN,
    STATES,
    TABLE,
    Event,
    State,
    Wanted,
    WrongState,
    after,
    next_action,
)

WANTED: tuple[Wanted, ...] = ("serve", "rest", "drop")
# Where each wish ends: as far as it can be had, and no further.
ENDS: dict[Wanted, set[State]] = {
    "serve": {"ready", "failed"},
    "rest": {"waiting", "failed"},
    "drop": {"gone"},
}


def reachable(start: State) -> set[State]:
    found, left = {start}, [start]
    while left:
        for state in TABLE[left.pop()].values():
            if state not in found:
                found.add(state)
                left.append(state)
    return found


def carried_out(state: State, wanted: Wanted, uses: list[bool], loads: list[bool]) -> list[State]:
    """The states that a driver goes through that does what it is told, until nothing is left to do.

    Args:
        uses: whether the build is in use each time somebody looks; then it is no more.
        loads: whether each load succeeds.
    """
    seen, uses, loads = [state], list(uses), list(loads)
    for _ in range(50):
        if state == "loading":
            state = after(state, "warmed" if not loads or loads.pop() else "failed")
            seen.append(state)
            continue
        used = uses.pop() if uses else False
        action = next_action(state, wanted, used)
        if action is None and not used:
            return seen
        if action is not None:
            state = after(state, action)
            seen.append(state)
    raise AssertionError(f"never ends: {seen}")


def test_every_state_can_be_reached_and_left() -> None:
    assert reachable("waiting") == set(STATES) == set(TABLE)
    for state in STATES:
        assert "gone" in reachable(state)
        assert (state == "gone") == (not TABLE[state])


def test_what_serves_is_warm() -> None:
    """The one way into memory is a warm-up that succeeded, and the one way out is to be freed."""
    assert ROUTED < RUN < HELD
    for before, events in TABLE.items():
        for event, state in events.items():
            if state in HELD and before not in HELD:
                assert event == "warmed"
            if before in HELD and state not in HELD:
                assert (before, event) == ("retired", "free")
            if before in ROUTED and state not in ROUTED:
                assert state in RUN  # what was promised to a request is still run


def test_what_cannot_happen_is_refused() -> None:
    with pytest.raises(WrongState, match="free cannot happen to a build that is ready"):
        after("ready", "free")


@given(
    st.sampled_from(STATES),
    st.sampled_from(WANTED),
    st.lists(st.booleans(), max_size=10),
    st.lists(st.booleans(), max_size=3),
)
def test_every_wish_is_carried_out_and_then_there_is_nothing_to_do(
    state: State, wanted: Wanted, uses: list[bool], loads: list[bool]
) -> None:
    seen = carried_out(state, wanted, uses, loads)
    assert seen[-1] in ENDS[wanted] or seen[-1] == "gone"
    assert next_action(seen[-1], wanted, False) is None
    if "gone" not in seen[:-1] and state != "gone":
        assert (seen[-1] == "gone") == (wanted == "drop")


@given(st.sampled_from(STATES), st.sampled_from(WANTED))
def test_nothing_is_taken_from_who_uses_it(state: State, wanted: Wanted) -> None:
    action = next_action(state, wanted, True)
    assert action not in ("retire", "free")
    if state == "ready" and wanted == "serve":
        assert action is None


@given(
    st.lists(st.tuples(st.sampled_from(WANTED), st.booleans(), st.booleans()), max_size=40),
)
def test_whatever_is_wanted_in_turns_each_step_is_in_the_table(
    turns: list[tuple[Wanted, bool, bool]],
) -> None:
    """Minds may be changed at any moment: the driver never meets a state that it cannot act in."""
    state: State = "waiting"
    path = [state]
    for wanted, in_use, works in turns:
        action: Event | None = next_action(state, wanted, in_use)
        if state == "loading":
            action = "warmed" if works else "failed"
        if action is not None:
            state = after(state, action)
            path.append(state)
    for before, now in pairwise(path):
        if now in ROUTED:
            assert before in ("loading", "leaving", "retired")
