"""The queue: order, removal, and what is remembered of arrivals."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.choices import in_order
from router.queue import MEMORY_S, Queue, Waiting
from tests.router.builders import menu, offer

PLATE = menu(offer("a", 0.9), offer("b", 0.8))
CHOICES = in_order(PLATE, PLATE.offers)
OTHER = in_order(PLATE, PLATE.offers[:1])


def request(ticket: int, due_s: float, rows: int = 1) -> Waiting:
    return Waiting(due_s, ticket, rows, due_s, CHOICES, "a")


dues = st.lists(st.integers(0, 5).map(float), max_size=30)


@given(dues, st.data())
def test_the_queue_is_sorted_whatever_the_order_of_insertion(
    due: list[float], data: st.DataObject
) -> None:
    listed = [request(ticket, at) for ticket, at in enumerate(due)]
    one, other = Queue(), Queue()
    for waiting in listed:
        one.add(waiting)
    for waiting in data.draw(st.permutations(listed)):
        other.add(waiting)
    assert one.waiting == other.waiting == sorted(listed)
    assert all(a[:2] < b[:2] for a, b in pairwise(one.waiting))


@given(dues, st.data())
def test_who_is_taken_out_is_gone_and_nobody_else(due: list[float], data: st.DataObject) -> None:
    listed = [request(ticket, at) for ticket, at in enumerate(due)]
    queue = Queue()
    for waiting in listed:
        queue.add(waiting)
    leaving = data.draw(st.lists(st.sampled_from(listed), max_size=10)) if listed else []
    stranger = request(1000, 2.0)
    twin = leaving[0]._replace() if leaving else stranger
    queue.remove([stranger])
    assert len(queue.waiting) == len(listed)
    if leaving:  # one that only looks the same is not it
        queue.remove([twin])
        assert len(queue.waiting) == len(listed)
    queue.remove(leaving)  # also twice the same
    assert queue.waiting == sorted(w for w in listed if w not in leaving)


def test_a_steady_stream_is_expected_to_go_on() -> None:
    queue = Queue()
    for ms in range(3000):
        queue.arrived(CHOICES, 20.0, 2, ms / 1000)
    (kind,) = queue.expected(3.0)
    assert kind.choices is CHOICES
    assert kind.within_ms == 20.0
    assert kind.rows_per_ms == pytest.approx(2.0, rel=0.01)


def test_one_of_many_rows_is_no_stream_of_them() -> None:
    queue = Queue()
    queue.arrived(CHOICES, 20.0, 5000, 0.0)
    (once,) = queue.expected(0.0)
    assert once.rows_per_ms * MEMORY_S * 1000 < 100
    for ms in range(0, 2000, 10):  # many are
        queue.arrived(CHOICES, 20.0, 5000, ms / 1000)
    (often,) = queue.expected(2.0)
    assert often.rows_per_ms == pytest.approx(500, rel=0.05)


def test_one_in_no_hurry_is_no_sign_of_another() -> None:
    queue = Queue()
    queue.arrived(CHOICES, 1000.0, 1, 0.0)
    assert queue.expected(0.0)[0].rows_per_ms == 0
    queue.arrived(CHOICES, 1000.0, 1, 0.0)
    assert queue.expected(0.0)[0].rows_per_ms > 0


def test_what_stopped_is_forgotten_in_time() -> None:
    queue = Queue()
    queue.arrived(CHOICES, 20.0, 1, 0.0)
    fresh, old = (queue.expected(at_s)[0].rows_per_ms for at_s in (0.0, MEMORY_S))
    assert old == pytest.approx(fresh / math.e)
    assert queue.expected(10.0)[0].rows_per_ms < 1e-9


def test_deadlines_that_are_nearly_alike_are_one_kind() -> None:
    queue = Queue()
    for within_ms in (19.9, 20.0, 20.1):
        queue.arrived(CHOICES, within_ms, 1, 0.0)
    queue.arrived(CHOICES, 40.0, 1, 0.0)
    queue.arrived(OTHER, 20.0, 1, 0.0)
    assert [(k.choices, k.within_ms) for k in queue.expected(0.0)] == [
        (CHOICES, 20.0),
        (CHOICES, 40.0),
        (OTHER, 20.0),
    ]


@given(st.floats(0.1, 1e6))
def test_a_kinds_deadline_is_right_to_within_an_eighth(within_ms: float) -> None:
    queue = Queue()
    queue.arrived(CHOICES, within_ms, 1, 0.0)
    assert queue.expected(0.0)[0].within_ms == pytest.approx(within_ms, rel=0.126)


def test_of_very_many_kinds_the_busier_are_remembered() -> None:
    queue = Queue()
    for _ in range(5):
        queue.arrived(CHOICES, 20.0, 1, 0.0)
    for n in range(200):
        queue.arrived(CHOICES, 100.0 * 1.3**n, 1, 0.0)
    kinds = queue.expected(0.0)
    assert len(kinds) <= 32
    assert kinds[0].within_ms == 20.0
