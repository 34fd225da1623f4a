"""Refusals that stand: whom they refuse, whom they let through, and when they end."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.shed import Shed, demands_nothing
from router.constraints import KEYS
from router.errors import Overloaded


class Clockwork:
    """A shed with one kind of request, and what it looks at."""

    def __init__(self, retry_after_s: float = 1.0) -> None:
        self.left = 0
        self.counted = 0
        self.shed: Shed[str] = Shed(lambda: self.left)
        self.keep(0.0, retry_after_s)

    def keep(self, now_s: float, retry_after_s: float = 1.0) -> None:
        def count() -> None:
            self.counted += 1

        error = Overloaded("no", retry_after_s=retry_after_s)
        self.held = self.shed.keep("kind", error, "no", count, now_s)

    def refused(self, now_s: float, times: int = 1) -> list[bool]:
        return [self.shed.find("kind", now_s) is not None for _ in range(times)]


def test_a_refusal_stands_until_somebody_leaves_the_queue() -> None:
    it = Clockwork()
    assert it.refused(0.001, 3) == [True] * 3
    it.left += 2
    # As many are let through as have left.
    assert it.refused(0.002, 4) == [False, False, True, True]


def test_other_kinds_are_not_refused() -> None:
    assert Clockwork().shed.find("another", 0.001) is None


@pytest.mark.parametrize(("retry_after_s", "old_s"), [(1.0, 0.0101), (0.004, 0.0041), (-1, 0.0)])
def test_an_old_refusal_lets_one_through_to_be_decided(retry_after_s: float, old_s: float) -> None:
    it = Clockwork(retry_after_s)
    assert it.refused(old_s, 3) == [False, True, True]
    assert it.refused(old_s + 0.0011, 2) == [False, True]
    it.keep(old_s + 0.002)
    assert it.refused(old_s + 0.003) == [True]


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=5))
def test_a_refusal_that_was_not_decided_anew_ends(times: list[float]) -> None:
    it = Clockwork()
    for now_s in sorted(times):
        assert it.refused(now_s, 5) == [False] * 5


def test_it_is_over_when_more_are_let_in_than_have_left() -> None:
    it = Clockwork()
    it.left += 1
    it.refused(0.001)
    # It took the place of the one that left.
    assert it.shed.is_over("kind")
    it.left += 1
    assert not it.shed.is_over("kind")


def test_nothing_is_looked_up_once_nobody_is_refused() -> None:
    it = Clockwork()
    assert it.shed.any(0.05)
    assert not it.shed.any(0.2)


def test_a_copy_lets_through_by_itself() -> None:
    it = Clockwork()
    copy = it.held.copy()
    it.left += 1
    assert it.refused(0.001, 2) == [False, True]
    assert [copy.stands(0.001), copy.stands(0.001)] == [False, True]


@pytest.mark.parametrize("key", [*KEYS, "timeout"])
def test_a_body_that_demands_something_is_told(key: str) -> None:
    body = json.dumps({"inputs": [], "parameters": {key: 1}}).encode()
    assert not demands_nothing(body)
    assert not demands_nothing(body + b"\0" * 9, len(body))
    # Tensors are no text.
    assert demands_nothing(b"{}" + body, 2)
    # Any spelling that JSON allows.
    spelt = "".join(f"\\u{ord(letter):04x}" for letter in key)
    assert not demands_nothing(body.replace(key.encode(), spelt.encode()))


def test_a_body_too_long_to_look_through_may_demand_anything() -> None:
    assert demands_nothing(b" " * (256 << 10))
    assert not demands_nothing(b" " * ((256 << 10) + 1))


def test_while_many_are_being_decided_an_older_refusal_stands() -> None:
    it = Clockwork()
    it.left += 5
    assert it.held.stands(0.5, crowded=True)
    assert not it.held.stands(0.5)
    assert not it.held.stands(1.2, crowded=True)
