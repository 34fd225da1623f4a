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


def test_a_request_rides_with_those_queued_for_the_same_variant() -> None:
    small = offer("small", first_ms=1.0, row_ms=0.5, tail=2.0, max_batch=4)
    # 3 rows are queued for it (2 ms) and a lane is free in 5 ms: they leave together, as 4 rows.
    snapshot = Snapshot((5.0,), backlog_ms=2.0, queued_rows={"small": 3}, overhead_ms=0.25)
    assert latency_ms(small, 1, snapshot, wait_ms((5.0,), 2.0)) == pytest.approx(5 + 5 + 0.25)
    # With 4 queued the batch is full: it waits for them at the median, then runs alone.
    snapshot = Snapshot((5.0,), backlog_ms=2.5, queued_rows={"small": 4})
    assert latency_ms(small, 1, snapshot, 7.5) == pytest.approx(5 + 2.5 + 2)


@given(st.integers(1, 20), st.integers(0, 40), st.floats(0, 20), st.floats(0, 50))
def test_more_of_anything_never_predicts_less(
    rows: int, queued: int, busy: float, other: float
) -> None:
    variant = offer("v", first_ms=1.0, row_ms=0.3)

    def predicted(busy: float, other: float) -> float:
        own = batch_ms(variant.typical_ms, queued)
        snapshot = Snapshot(
            (busy, busy), backlog_ms=own + other, queued_rows={"v": queued} if queued else {}
        )
        wait = wait_ms(snapshot.lane_free_in_ms, snapshot.backlog_ms)
        return latency_ms(variant, rows, snapshot, wait)

    base = predicted(busy, other)
    assert base >= batch_ms(variant.promised_ms, rows)
    assert predicted(busy + 1, other) >= base
    assert predicted(busy, other + 1) >= base
