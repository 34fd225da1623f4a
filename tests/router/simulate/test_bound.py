"""The bound: above every schedule, equal to its linear program, right where it is known."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from router.simulate.bound import Bound, Class, bound, least_ms
from tests.laws import examples

SLACK = 1e-7
# A model's variants, best first: accuracy, and lane time per row in ms.
ACCURACIES = (0.935, 0.9348, 0.933, 0.928, 0.915, 0.88)
ROW_MS = (2.05, 1.05, 0.57, 0.33, 0.13, 0.05)


@st.composite
def traffics(draw: st.DrawFn, *, options: int = 2) -> dict[str, Any]:
    """Arguments of bound(): a few requests, close enough to stand in each other's way."""
    values = st.tuples(*[st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0])] * options)
    works = st.tuples(*[st.sampled_from([1.0, 2.0, 3.5, 8.0])] * options)
    latency = st.sampled_from([0.0, 1.0, 2.5, 4.0, 9.0, math.inf])
    classes = draw(st.lists(st.builds(Class, latency, values, works), min_size=1, max_size=2))
    arrivals = sorted(draw(st.lists(st.integers(0, 8), min_size=1, max_size=5)))
    kinds = [draw(st.integers(0, len(classes) - 1)) for _ in arrivals]
    paces = st.sampled_from([0.25, 0.5, 1.0, 2.0])
    speed = [(0.0, draw(paces)), (0.003, draw(paces)), (0.006, draw(paces))]
    return {
        "arrivals_s": [arrival / 1000 for arrival in arrivals],
        "kinds": kinds,
        "classes": classes,
        "lanes": draw(st.integers(1, 2)),
        "speed": speed,
    }


def finish(start: float, work_ms: float, speed: Sequence[tuple[float, float]]) -> float:
    """When a batch of that much work, started then on one lane, ends."""
    left = work_ms / 1000
    for (since, pace), (until, _) in pairwise([*speed, (math.inf, 0.0)]):
        begin = max(start, since)
        if begin < until:
            if begin + left / pace <= until:
                return begin + left / pace
            left -= (until - begin) * pace
    raise AssertionError("unreachable: the last speed is not 0")


def best_schedule(
    arrivals_s: list[float],
    kinds: list[int],
    classes: list[Class],
    lanes: int,
    speed: list[tuple[float, float]],
    setup_ms: float,
) -> float:
    """The most total worth of any schedule of batches, none interrupted, by trying all.

    A batch takes its setup and its members' work. It is enough to try batches in the order of
    their start, each on the lane that is free first, as early as it can, with no member late.
    """
    everyone = range(len(arrivals_s))

    @cache
    def best(waiting: frozenset[int], free: tuple[float, ...]) -> float:
        found = 0.0
        for size in range(1, len(waiting) + 1):
            for batch in combinations(sorted(waiting), size):
                start = max(free[0], *(arrivals_s[i] for i in batch))
                for option in range(2):
                    work = sum(classes[kinds[i]].work_ms[option] for i in batch)
                    end = finish(start, setup_ms + work, speed)
                    if all(
                        end <= arrivals_s[i] + classes[kinds[i]].max_latency_ms / 1000 + 1e-12
                        for i in batch
                    ):
                        rest = best(waiting - set(batch), tuple(sorted((end, *free[1:]))))
                        gain = sum(classes[kinds[i]].worth[option] for i in batch)
                        found = max(found, gain + rest)
        return found

    return best(frozenset(everyone), (0.0,) * lanes)


@examples(150)
@given(traffics(), st.sampled_from([0.0, 1.0, 2.0]))
def test_no_schedule_beats_it(traffic: dict[str, Any], setup_ms: float) -> None:
    count = len(traffic["arrivals_s"])
    amortised = [
        replace(of, work_ms=tuple(work + setup_ms / count for work in of.work_ms))
        for of in traffic["classes"]
    ]
    limit = bound(**{**traffic, "classes": amortised})
    assert best_schedule(**traffic, setup_ms=setup_ms) <= count * limit.worth + SLACK
    counted = [replace(of, worth=(1.0, 1.0)) for of in traffic["classes"]]
    most = best_schedule(**{**traffic, "classes": counted}, setup_ms=setup_ms)
    assert most <= count * limit.served + SLACK


def program(
    arrivals_s: list[float],
    kinds: list[int],
    classes: list[Class],
    lanes: int,
    speed: list[tuple[float, float]],
) -> float:
    """The linear program that the bound claims to solve, written out: mean worth."""
    of = [classes[kind] for kind in kinds]
    far = arrivals_s[-1] + 1.0  # later than all work there can be takes
    due = [min(a + c.max_latency_ms / 1000, far) for a, c in zip(arrivals_s, of, strict=True)]
    edges = sorted({*arrivals_s, *due, *(second for second, _ in speed)})
    capacity = [
        1000 * lanes * (until - since) * [pace for second, pace in speed if second <= since][-1]
        for since, until in pairwise(edges)
    ]
    answers = [(i, v) for i in range(len(of)) for v in range(len(of[i].worth))]
    runs = [
        (i, j)
        for i in range(len(of))
        for j in range(len(capacity))
        if arrivals_s[i] <= edges[j] and edges[j + 1] <= due[i]
    ]
    width, rows, limits = len(answers) + len(runs), [], []
    for i in range(len(of)):
        once, paid = np.zeros(width), np.zeros(width)
        for at, (request, v) in enumerate(answers):
            if request == i:
                once[at], paid[at] = 1, of[i].work_ms[v]
        for at, (request, _) in enumerate(runs, len(answers)):
            if request == i:
                paid[at] = -1
        rows += [once, paid]
        limits += [1.0, 0.0]
    for j, most in enumerate(capacity):
        rows.append(np.array([0.0] * len(answers) + [float(slot == j) for _, slot in runs]))
        limits.append(most)
    worth = [-of[i].worth[v] for i, v in answers] + [0.0] * len(runs)
    solved = linprog(worth, np.array(rows), limits)
    assert solved.success
    return -float(solved.fun) / len(of)


@examples(150)
@given(traffics(options=3))
def test_it_is_the_value_of_its_linear_program(traffic: dict[str, Any]) -> None:
    assert bound(**traffic).worth == pytest.approx(program(**traffic), abs=1e-6)
    counted = [replace(of, worth=(1.0,) * 3) for of in traffic["classes"]]
    value = program(**{**traffic, "classes": counted})
    assert bound(**traffic).served == pytest.approx(value, abs=1e-6)


def longer(traffic: dict[str, Any]) -> dict[str, Any]:
    classes = [replace(of, max_latency_ms=of.max_latency_ms + 1.5) for of in traffic["classes"]]
    return {"classes": classes}


def cheaper(traffic: dict[str, Any]) -> dict[str, Any]:
    first, *others = traffic["classes"]
    return {"classes": [replace(first, work_ms=tuple(w / 2 for w in first.work_ms)), *others]}


def more_to_choose_from(traffic: dict[str, Any]) -> dict[str, Any]:
    first, *others = traffic["classes"]
    added = replace(first, worth=(*first.worth, 0.7), work_ms=(*first.work_ms, 0.4))
    return {"classes": [added, *others]}


@pytest.mark.parametrize(
    "loosen",
    [
        lambda traffic: {"lanes": traffic["lanes"] + 1},
        lambda traffic: {"speed": [(at, 1.3 * pace) for at, pace in traffic["speed"]]},
        longer,
        cheaper,
        more_to_choose_from,
    ],
    ids=["lanes", "speed", "deadlines", "work", "options"],
)
@given(traffic=traffics())
def test_loosening_never_lowers_it(traffic: dict[str, Any], loosen: Any) -> None:
    tight, loose = bound(**traffic), bound(**{**traffic, **loosen(traffic)})
    assert loose.worth >= tight.worth - SLACK
    assert loose.served >= tight.served - SLACK


@given(traffics())
def test_two_lanes_are_one_of_twice_the_speed(traffic: dict[str, Any]) -> None:
    fast = [(at, pace * traffic["lanes"]) for at, pace in traffic["speed"]]
    one = bound(**{**traffic, "lanes": 1, "speed": fast})
    assert one.worth == pytest.approx(bound(**traffic).worth, abs=SLACK)


def test_with_room_for_all_everybody_gets_the_best() -> None:
    of = Class(30.0, ACCURACIES, ROW_MS)
    assert bound([i / 100 for i in range(50)], [0] * 50, [of], lanes=2) == Bound(0.935, 1.0)


@pytest.mark.parametrize(
    "of",
    [Class(0.0, (0.9,), (1.0,)), Class(50.0, (), ())],
    ids=["no time", "no option"],
)
def test_what_cannot_be_answered_counts_nothing(of: Class) -> None:
    assert bound([0.0, 1.0], [0, 0], [of], lanes=1) == Bound(0.0, 0.0)


def test_an_answer_without_work_is_free() -> None:
    free = Class(0.0, (0.4, 0.9), (0.0, 1.0))
    assert bound([0.0], [0], [free], lanes=1).worth == pytest.approx(0.4)


def test_whenever_is_answered_in_the_end_unless_the_machine_stops() -> None:
    whenever = Class(math.inf, (0.9, 0.5), (4.0, 1.0))
    arrivals, kinds = [0.0] * 10, [0] * 10
    assert bound(arrivals, kinds, [whenever], lanes=1) == Bound(0.9, 1.0)
    stops = ((0.0, 1.0), (0.007, 0.0))  # 7 ms of work: seven at the least, slope 0.5
    stopped = bound(arrivals, kinds, [whenever], lanes=1, speed=stops)
    assert stopped.served == pytest.approx(0.7)
    assert stopped.worth == pytest.approx(0.35)


def test_the_urgent_go_first_and_patience_costs_them_nothing() -> None:
    # One lane, 10 ms: the urgent need the first 4, the patient have the other 6.
    classes = [Class(4.0, (1.0,), (1.0,)), Class(10.0, (1.0,), (1.0,))]
    found = bound([0.0] * 10, [1] * 6 + [0] * 4, classes, lanes=1)
    assert found == Bound(1.0, 1.0)
    # With two more urgent ones, two of all are lost.
    assert bound([0.0] * 12, [1] * 6 + [0] * 6, classes, lanes=1).served == pytest.approx(10 / 12)


def knapsack(budget_ms: float) -> float:
    """Best mean accuracy of mixtures of two variants, or one and none, within a mean lane time."""
    points = [(0.0, 0.0), *zip(ROW_MS, ACCURACIES, strict=True)]
    return max(
        low[1] + (high[1] - low[1]) * min(1.0, (budget_ms - low[0]) / (high[0] - low[0]))
        for low in points
        for high in points
        if low[0] <= budget_ms and low[0] < high[0]
    )


@pytest.mark.parametrize("load", [0.2, 0.5, 1.5, 3.0, 10.0, 30.0])
def test_steady_traffic_is_a_fractional_knapsack(load: float) -> None:
    every_ms = 0.57 / 2 / load
    count = 20_000
    arrivals = [i * every_ms / 1000 for i in range(count)]
    found = bound(arrivals, [0] * count, [Class(30.0, ACCURACIES, ROW_MS)], lanes=2)
    # Lane time there is for one: until the last is due, or until the last arrives.
    most = knapsack(2 * (every_ms + 30.0 / count))
    assert knapsack(2 * every_ms) - SLACK <= found.worth <= most + SLACK


@pytest.mark.parametrize(
    ("load", "variation", "known"),
    [
        (0.5, 1.0, 0.9348),
        (1.5, 1.0, 0.9291),
        (0.8, 4.0, 0.9334),
        (1.5, 4.0, 0.9291),
        (2.5, 4.0, 0.9213),
    ],
)
def test_it_agrees_with_a_discretised_program(load: float, variation: float, known: float) -> None:
    """Found elsewhere, by cutting time into slots, on other draws of the same traffic.

    Load is relative to all lanes running the third variant; gaps are Gamma, of that coefficient of
    variation.
    """
    chance = random.Random(1)
    shape, mean_s = variation**-2, 0.57 / 2 / load / 1000
    arrivals = [0.0]
    while arrivals[-1] < 10.0:
        arrivals.append(arrivals[-1] + chance.gammavariate(shape, mean_s / shape))
    kinds = [0] * len(arrivals)
    found = bound(arrivals, kinds, [Class(30.0, ACCURACIES, ROW_MS)], lanes=2)
    assert found.worth == pytest.approx(known, abs=0.001)


FINE: dict[str, Any] = {
    "arrivals_s": [0.0, 1.0],
    "kinds": [0, 0],
    "classes": [Class(1.0, (0.9,), (1.0,))],
    "lanes": 1,
}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"arrivals_s": [], "kinds": []}, "arrivals_s"),
        ({"arrivals_s": [1.0, 0.0]}, "arrivals_s"),
        ({"arrivals_s": [0.0, math.nan]}, "arrivals_s"),
        ({"arrivals_s": [0.0, math.inf]}, "arrivals_s"),
        ({"kinds": [0]}, "kinds"),
        ({"kinds": [0, 1]}, "kinds"),
        ({"kinds": [-1, 0]}, "kinds"),
        ({"classes": [Class(-1.0, (0.9,), (1.0,))]}, r"classes\[0\].max_latency_ms"),
        ({"classes": [Class(math.nan, (0.9,), (1.0,))]}, r"classes\[0\].max_latency_ms"),
        ({"classes": [Class(1.0, (0.9,), (1.0, 2.0))]}, r"classes\[0\].work_ms"),
        ({"classes": [Class(1.0, (0.9,), (-1.0,))]}, r"classes\[0\].work_ms"),
        ({"classes": [Class(1.0, (math.inf,), (1.0,))]}, r"classes\[0\].worth"),
        ({"classes": [Class(1.0, (-0.1,), (1.0,))]}, r"classes\[0\].worth"),
        ({"lanes": 0}, "lanes"),
        ({"speed": ()}, "speed"),
        ({"speed": ((0.5, 1.0),)}, "speed"),
        ({"speed": ((-math.inf, 1.0),)}, "speed"),
        ({"speed": ((0.0, 1.0), (0.0, 2.0))}, "speed"),
        ({"speed": ((0.0, 1.0), (math.nan, 2.0))}, "speed"),
        ({"speed": ((0.0, -1.0),)}, "speed"),
    ],
)
def test_bad_input_is_named(wrong: dict[str, Any], named: str) -> None:
    bound(**FINE)
    with pytest.raises(ValueError, match=named):
        bound(**{**FINE, **wrong})


@st.composite
def distributions(draw: st.DrawFn) -> list[tuple[float, float]]:
    count = draw(st.integers(2, 6))
    inner = draw(st.lists(st.integers(0, 20), min_size=count - 2, max_size=count - 2))
    times = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    levels = [0.0, *sorted(level / 20 for level in inner), 1.0]
    return list(zip(levels, map(float, sorted(times)), strict=True))


@given(distributions())
def test_least_is_that_of_a_fine_grid_and_at_most_the_mean(
    points: list[tuple[float, float]],
) -> None:
    levels, times = (np.array(column) for column in zip(*points, strict=True))
    grid = np.linspace(0.0, 1.0, 20_001)
    middle = (grid[1:] + grid[:-1]) / 2
    below = np.cumsum(np.interp(middle, levels, times)) / len(middle)
    # E[min(X, r)] / P(X ≤ r) for r at each level of the grid in turn.
    costs = (below + (1 - grid[1:]) * np.interp(grid[1:], levels, times)) / grid[1:]
    assert least_ms(points) == pytest.approx(float(costs.min()), rel=0.01, abs=0.01)
    mean = sum((q - p) * (x + y) / 2 for (p, x), (q, y) in pairwise(points))
    assert least_ms(points) <= mean + 1e-9


@given(st.floats(0.0, 1e6))
def test_least_of_a_constant_is_itself(ms: float) -> None:
    assert least_ms([(0.0, ms), (1.0, ms)]) == ms


def test_a_rare_long_batch_is_better_given_up() -> None:
    # 1 ms nine times out of ten, else 100 ms: stopped at 1 ms, a success costs 1 / 0.9.
    points = [(0.0, 1.0), (0.9, 1.0), (0.9, 100.0), (1.0, 100.0)]
    assert least_ms(points) == pytest.approx(1 / 0.9)


@examples(60)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4).map(sorted),
    st.integers(1, 14),
    st.integers(1, 4),
)
def test_with_random_times_no_policy_expects_more(
    samples: list[int], within: int, requests: int
) -> None:
    """The best of all policies on one lane that may stop a batch whenever and try it again."""

    @cache
    def best(left: int, waiting: int) -> float:
        if not left or not waiting:
            return 0.0
        return max(
            sum(
                1 + best(left - time, waiting - 1) if time <= stop else best(left - stop, waiting)
                for time in samples
            )
            / len(samples)
            for stop in range(1, left + 1)
        )

    count = len(samples)
    points = [(at / count, float(x)) for i, x in enumerate(samples) for at in (i, i + 1)]
    of = Class(float(within), (1.0,), (least_ms(points),))
    found = bound([0.0] * requests, [0] * requests, [of], lanes=1)
    assert best(within, requests) <= requests * found.served + SLACK


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0.0, 1.0)],
        [(0.1, 1.0), (1.0, 1.0)],
        [(0.0, 1.0), (0.9, 1.0)],
        [(0.0, 2.0), (1.0, 1.0)],
        [(0.0, 1.0), (0.6, 1.0), (0.5, 1.0), (1.0, 1.0)],
        [(0.0, -1.0), (1.0, 1.0)],
        [(0.0, 1.0), (1.0, math.inf)],
        [(0.0, 1.0), (math.nan, 1.0), (1.0, 1.0)],
    ],
)
def test_points_that_are_no_distribution_are_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="points"):
        least_ms(points)
