"""Laws of domination and of the hypervolume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.search.frontier import Point, beaten_by, dominates, front, hypervolume

_drops = st.floats(-0.02, 0.3)


@st.composite
def points(draw: st.DrawFn) -> Point:
    drop, half = draw(_drops), draw(st.floats(0, 0.02))
    return Point(
        str(draw(st.integers(0, 10**9))),
        draw(st.floats(0.01, 10)),
        draw(st.floats(0, 0.2)),
        drop,
        drop - half,
        drop + half,
    )


def exact(objective: float, drop: float) -> Point:
    return Point("p", objective, 0.0, drop, drop, drop)


@given(points(), points())
def test_two_never_beat_each_other(a: Point, b: Point) -> None:
    assert not (dominates(a, b) and dominates(b, a))
    assert not dominates(a, a)


@given(st.lists(points(), min_size=1, max_size=12))
def test_what_is_left_out_of_the_front_is_beaten_and_what_is_in_it_is_not(
    there: list[Point],
) -> None:
    kept = front(there)
    assert kept
    for point in there:
        assert (point in kept) == (beaten_by(point, there) is None)


def test_a_difference_inside_the_spread_beats_nothing() -> None:
    fast = Point("fast", 0.95, 0.1, 0.01, 0.008, 0.012)
    slow = Point("slow", 1.0, 0.02, 0.01, 0.008, 0.012)
    assert not dominates(fast, slow)
    assert dominates(Point("faster", 0.85, 0.1, 0.01, 0.008, 0.012), slow)
    better = Point("better", 1.0, 0.02, 0.0, -0.001, 0.001)
    assert dominates(better, slow)
    assert not dominates(Point("unsure", 1.0, 0.02, 0.0, -0.001, 0.009), slow)


@given(st.lists(points(), max_size=8), points())
def test_one_point_more_never_lessens_the_hypervolume(there: list[Point], more: Point) -> None:
    before = hypervolume(there, 5, 0.1)
    assert 0 <= before <= hypervolume([*there, more], 5, 0.1) + 1e-12 <= 1 + 2e-12


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6))
def test_the_hypervolume_is_the_area_that_a_grid_counts(there: list[tuple[int, int]]) -> None:
    chosen = [exact(x, y / 100) for x, y in there]
    cells = np.zeros((20, 20), dtype=bool)
    for x, y in there:
        cells[x:, y:] = True
    assert hypervolume(chosen, 20, 0.2) == pytest.approx(cells.mean())


def test_a_rectangle_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0 by 0\.1"):
        hypervolume([exact(1, 0)], 0, 0.1)
