"""A backlog delivers all in order, wakes for what comes late, and drops what is too much."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from gateway.recording.backlog import Backlog
from tests.e2e.harness import PATIENCE_S, until


def test_everything_arrives_once_and_in_order() -> None:
    came: list[int] = []
    backlog: Backlog[int] = Backlog("t", came.extend, most=10_000, every_s=0.0, at_once=7)
    for number in range(5000):
        backlog.put(number)
        if number % 500 == 0:  # the thread sleeps again, and must be woken
            until(lambda: len(came) == number + 1, "all came")  # noqa: B023 - it is called here
    assert backlog.close(10) == 0
    assert came == list(range(5000)) and backlog.dropped == 0


def test_what_is_too_much_is_dropped_and_counted() -> None:
    came: list[int] = []
    held, go = threading.Event(), threading.Event()

    def deliver(some: Sequence[int]) -> None:
        held.set()
        assert go.wait(10)
        came.extend(some)

    backlog: Backlog[int] = Backlog("t", deliver, most=3, every_s=0.0, at_once=1)
    backlog.put(0)
    assert held.wait(10)
    for number in range(1, 10):
        backlog.put(number)
    assert backlog.dropped == 6
    assert backlog.close(0.01) == 4  # one is in hand, three wait, and nobody waits for longer
    go.set()
    assert backlog.close(10) == 0 and came == [0, 1, 2, 3]


def test_what_cannot_be_delivered_is_lost_and_the_rest_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    came: list[int] = []

    def deliver(some: Sequence[int]) -> None:
        if 2 in some:
            raise OSError("the disk is full")
        came.extend(some)

    backlog: Backlog[int] = Backlog("t", deliver, most=9, every_s=0.0, at_once=1)
    for number in range(4):
        backlog.put(number)
    until(lambda: came == [0, 1, 3], "the rest came")
    assert backlog.close(10) == 0  # which tells what is lost from then on
    assert backlog.dropped == 1
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize(("most", "at_once"), [(9, 3), (3, 3), (3, 9), (1, 9), (9, 1)])
def test_enough_do_not_wait_for_company(most: int, at_once: int) -> None:
    came: list[int] = []
    # Far longer than `until` waits: nothing comes by itself.
    every_s = 100 * PATIENCE_S
    backlog: Backlog[int] = Backlog("t", came.extend, most=most, every_s=every_s, at_once=at_once)
    enough = min(most, at_once)
    for number in range(enough):
        backlog.put(number)
    until(lambda: len(came) == enough, "they came")
    assert backlog.close(10) == 0 and backlog.dropped == 0


def test_it_is_looked_again_while_there_is_something_to_look_for() -> None:
    came: list[Sequence[int]] = []
    awaited = threading.Event()
    backlog: Backlog[int] = Backlog(
        "t", came.append, most=9, every_s=0.01, at_once=3, again=awaited.is_set
    )
    backlog.put(1)
    until(lambda: came == [[1]], "it came")
    awaited.set()
    backlog.put(2)
    until(lambda: [2] in came and came[-1] == [], "it is looked again")
    awaited.clear()
    assert backlog.close(10) == 0 and [some for some in came if some] == [[1], [2]]


def test_at_the_end_it_is_looked_once_more() -> None:
    came: list[Sequence[int]] = []
    backlog: Backlog[int] = Backlog(
        "t", came.append, most=9, every_s=100 * PATIENCE_S, at_once=3, again=lambda: True
    )
    backlog.put(1)
    assert backlog.close(10) == 0
    assert came[0] == [1] and came[-1] == []
