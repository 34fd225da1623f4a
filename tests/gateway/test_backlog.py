"""A backlog delivers all in order, wakes for what comes late, and drops what is too much."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from gateway.recording.backlog import Backlog
from tests.e2e.harness import until


def test_everything_arrives_once_and_in_order() -> None:
    came: list[int] = []
    backlog: Backlog[int] = Backlog("t", came.extend, most=10_000, every_s=0.0, at_once=7)
    for number in range(5000):
        backlog.put(number)
        if number % 500 == 0:  # the thread sleeps again, and must be woken
            until(lambda: len(came) == number + 1, "all came")  # noqa: B023 - it is called here
    assert backlog.close(10)
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
    assert not backlog.close(0.01)  # which does not wait for longer
    go.set()
    assert backlog.close(10) and came == [0, 1, 2, 3]


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
    assert backlog.close(10)
    assert came == [0, 1, 3] and backlog.dropped == 1
    assert "the disk is full" in caplog.text


def test_enough_do_not_wait_for_company() -> None:
    came: list[int] = []
    backlog: Backlog[int] = Backlog("t", came.extend, most=9, every_s=60.0, at_once=3)
    for number in range(4):
        backlog.put(number)
    until(lambda: len(came) == 4, "they came")
    assert backlog.close(10)
