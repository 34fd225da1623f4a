"""Predicted waits and latencies, and the tables by rows that they come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.card import LatencyPoint
from router.estimate import latency_ms, wait_ms
from router.menu import batch_ms, by_rows
from router.snapshot import Snapshot
from tests.router.builders import offer


@pytest.mark.parametrize(
    ("lanes", "backlog", "expected"),
    [
        ((0.0,), 0.0, 0.0),
        ((3.0, 5.0), 0.0, 3.0),
        ((0.0, 10.0), 6.0, 6.0),
        ((0.0, 10.0), 20.0, 15.0),
        ((4.0, 4.0), 8.0, 8.0),
        ((1.0,), 2.0, 3.0),
    ],
)
def test_a_backlog_fills_the_emptiest_lanes_first(
    lanes: tuple[float, ...], backlog: float, expected: float
) -> None:
    assert wait_ms(lanes, backlog) == pytest.approx(expected)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6), st.floats(0, 1000))
def test_what_the_lanes_hold_at_that_level_is_the_backlog(
    lanes: list[float], backlog: float
) -> None:
    level = wait_ms(tuple(lanes), backlog)
    poured = sum(max(0.0, level - start) for start in lanes)
    assert poured == pytest.approx(backlog, abs=1e-6)
    assert wait_ms(tuple(reversed(lanes)), backlog) == pytest.approx(level)


def points(*pairs: tuple[int, float]) -> tuple[LatencyPoint, ...]:
    return tuple(
        LatencyPoint(
            batch=batch, threads=1, runs=10, p50_ms=ms, p95_ms=ms, p99_ms=ms * 2, spread_ms=0.0
        )
        for batch, ms in pairs
    )


def test_between_measured_batches_time_runs_straight() -> None:
    table = by_rows(points((1, 1.0), (2, 2.0), (4, 3.0)), 50)
    assert table == (0.0, 1.0, 2.0, 2.5, 3.0)
    assert by_rows(points((1, 1.0)), 99) == (0.0, 2.0)


def test_a_larger_batch_is_never_believed_to_be_faster() -> None:
    assert by_rows(points((1, 1.0), (2, 0.5), (4, 3.0)), 50) == (0.0, 1.0, 1.0, 2.0, 3.0)


def test_more_rows_than_a_batch_holds_run_in_several() -> None:
    table = (0.0, 1.0, 1.5)
    assert [batch_ms(table, rows) for rows in (1, 2, 3, 4, 5)] == [1.0, 1.5, 2.5, 3.0, 4.0]


def test_a_request_rides_with_those_ahead_in_a_batch_that_suits_the_variant() -> None:
    """The wait covers who goes before; with whom it rides is told from how many wait.

    The batch is as large as makes a row quick, not as large as can be: dispatch fills it so.
    """
    small = offer("small", first_ms=1.0, row_ms=0.5, tail=2.0, max_batch=4)
    assert small.efficient_rows == 4
    assert latency_ms(small, 1, Snapshot(overhead_ms=0.25), 5.0) == pytest.approx(5 + 2 + 0.25)
    assert latency_ms(small, 1, Snapshot(waiting=2), 5.0) == pytest.approx(5 + 4)
    assert latency_ms(small, 1, Snapshot(waiting=40), 5.0) == pytest.approx(5 + 5)
    # More rows than a batch holds run in several.
    assert latency_ms(small, 6, Snapshot(waiting=40), 5.0) == pytest.approx(5 + 5 + 3)
    flat = offer("flat", first_ms=1.0, row_ms=1.0, tail=2.0, max_batch=4)
    assert flat.efficient_rows == 1
    assert latency_ms(flat, 1, Snapshot(waiting=40), 5.0) == pytest.approx(5 + 2)


def test_no_batch_is_foretold_that_dispatch_would_not_run() -> None:
    """A batch takes half of the deadline at most, unless not everybody can be served."""
    slow = offer("slow", first_ms=1.0, row_ms=1.0, tail=1.0, max_batch=32)
    steep = offer("steep", first_ms=5.0, row_ms=1.0, tail=1.0, max_batch=32)
    busy = Snapshot(waiting=40, price=0.01)
    assert latency_ms(steep, 1, busy, 3.0) == pytest.approx(3 + steep.typical_ms[-1], rel=0.1)
    assert latency_ms(steep, 1, busy, 3.0, 20.0) == pytest.approx(3 + 10)
    # Its own rows may take longer than that.
    assert latency_ms(steep, 1, busy, 3.0, 8.0) == pytest.approx(3 + 5)
    assert latency_ms(slow, 1, busy, 3.0, 20.0) == pytest.approx(3 + 1)
    crowded = busy._replace(crowded=True)
    assert latency_ms(steep, 1, crowded, 3.0, 20.0) == latency_ms(steep, 1, busy, 3.0)


def test_what_was_seen_lately_corrects_the_card_but_not_the_wait() -> None:
    small = offer("small", first_ms=1.0, tail=2.0)
    seen = Snapshot(slowdown={"small": 3.0, "other": 9.0}, tail=1.5, margin=7.0, overhead_ms=0.25)
    assert latency_ms(small, 1, seen, 5.0) == pytest.approx(5 + 2 * 3 * 1.5 + 0.25)


@given(st.integers(1, 20), st.integers(0, 40), st.floats(0, 20), st.floats(1, 4), st.floats(1, 4))
def test_more_of_anything_never_predicts_less(
    rows: int, ahead: int, wait: float, slowdown: float, tail: float
) -> None:
    variant = offer("v", first_ms=1.0, row_ms=0.3)

    def predicted(
        rows: int, ahead: int, wait: float, slowdown: float, tail: float, overhead: float = 1.0
    ) -> float:
        seen = Snapshot(waiting=ahead, slowdown={"v": slowdown}, tail=tail, overhead_ms=overhead)
        return latency_ms(variant, rows, seen, wait)

    base = predicted(rows, ahead, wait, slowdown, tail)
    assert base >= batch_ms(variant.promised_ms, rows)
    assert predicted(rows + 1, ahead, wait, slowdown, tail) >= base
    assert predicted(rows, ahead + 1, wait, slowdown, tail) >= base
    assert predicted(rows, ahead, wait + 1, slowdown, tail) >= base
    assert predicted(rows, ahead, wait, slowdown + 1, tail) >= base
    assert predicted(rows, ahead, wait, slowdown, tail + 1) >= base
    assert predicted(rows, ahead, wait, slowdown, tail, 2.0) >= base
