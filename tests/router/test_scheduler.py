"""The scheduler as a whole: nothing is lost, nobody starves, no model is flooded by another."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router import policies
from router.constraints import Constraints, Floor
from router.dispatch import Assignment
from router.menu import Menu
from router.queue import PATIENCE_S, Waiting
from router.route import Policy
from router.scheduler import Scheduler
from router.simulate.replay import Model
from router.telemetry import Telemetry
from tests.laws import examples
from tests.router.builders import menu, offer

# Accuracy and ms of a row; a batch of n rows takes 0.1 ms and n times that.
VARIANTS = {
    "fp32": (0.935, 2.05),
    "int8": (0.933, 0.57),
    "pruned": (0.928, 0.33),
    "distilled": (0.915, 0.13),
    "tiny": (0.88, 0.05),
}
# The variant that a request without a queue gets: by evidence as good as the best, and cheaper.
BEST = "int8"


def plate(model: str) -> Menu:
    return menu(
        *[
            offer(
                name,
                accuracy,
                half_width=0.0,
                first_ms=0.1 + row_ms,
                row_ms=row_ms,
                tail=1.2,
                max_batch=32,
            )
            for name, (accuracy, row_ms) in VARIANTS.items()
        ],
        model=model,
    )


def scheduler(
    *models: str,
    rule: str = "gearshift",
    weights: Mapping[str, float] | None = None,
    lanes: int = 2,
) -> Scheduler:
    served = {model: Model(plate(model), frozenset(VARIANTS)) for model in models}
    return Scheduler(
        served,
        Telemetry(overhead_start_ms=0.0),
        policies.get(rule),
        Policy(),
        lanes=lanes,
        max_batch=32,
        weights=weights,
    )


# Nothing is lost.


class Conservation(RuleBasedStateMachine):
    """Whatever is submitted leaves exactly once: in a batch, expired, or withdrawn."""

    policy = "gearshift"

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 10.0
        self.scheduler = scheduler("m", "n", rule=self.policy)
        self.waiting: dict[int, Waiting] = {}
        self.left: Counter[int] = Counter()
        self.running: dict[int, Assignment] = {}
        self.tickets = 0

    @initialize(weight=st.floats(0.5, 4.0))
    def weigh(self, weight: float) -> None:
        self.scheduler = scheduler("m", "n", rule=self.policy, weights={"m": weight})

    @rule(
        count=st.integers(1, 40),
        model=st.sampled_from(["m", "n"]),
        limit_ms=st.none() | st.floats(0.2, 80.0),
        floor=st.none() | st.sampled_from([0.9, 0.93]),
        optimize=st.sampled_from(["accuracy", "cost", "latency"]),
        priority=st.sampled_from(["high", "normal", "low"]),
        soft=st.booleans(),
        rows=st.sampled_from([1, 1, 1, 3, 40]),
    )
    def submit(  # type: ignore[no-untyped-def]
        self, count, model, limit_ms, floor, optimize, priority, soft, rows
    ) -> None:
        demands = Constraints(
            max_latency_ms=limit_ms,
            min_accuracy=None if floor is None else Floor(floor),
            optimize=optimize,
            priority=priority,
            relax=("latency",) if soft else (),
        )
        for _ in range(count):
            decision = self.scheduler.route(model, demands, rows, self.now_s)
            if decision.verdict != "accepted":
                assert decision.verdict == "overloaded" or limit_ms is not None
                assert decision.why
                continue
            placed = self.scheduler.waiting(decision, demands, rows, self.tickets, self.now_s)
            self.scheduler.submit((placed,), self.now_s)
            self.waiting[self.tickets] = placed
            self.tickets += 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        self.scheduler.withdraw(self.waiting[ticket])
        self.scheduler.withdraw(self.waiting.pop(ticket))  # twice is once
        self.left[ticket] += 1

    @precondition(lambda self: len(self.running) < 2)
    @rule()
    def take(self) -> None:
        self.taken()

    def taken(self) -> Assignment:
        lane = next(lane for lane in range(2) if lane not in self.running)
        assignment = self.scheduler.take(lane, self.now_s)
        for waiting in (*assignment.members, *assignment.expired):
            assert self.waiting.pop(waiting.ticket) is waiting
            self.left[waiting.ticket] += 1
        if assignment.members:
            self.running[lane] = assignment
        elif not assignment.expired and self.waiting:
            assert assignment.wait_until_s > self.now_s, "neither taken nor told until when to wait"
        return assignment

    @precondition(lambda self: self.running)
    @rule(factor=st.floats(0.5, 3.0))
    def finish(self, factor: float) -> None:
        assignment = self.running.pop(min(self.running))
        took_ms = assignment.promised_ms * factor
        self.now_s += took_ms / 1000
        self.scheduler.finished(assignment, took_ms, self.now_s)

    @rule(ms=st.floats(0.0, 100.0))
    def wait(self, ms: float) -> None:
        self.now_s += ms / 1000

    @invariant()
    def all_are_accounted_for(self) -> None:
        assert {w.ticket for w in self.scheduler.queue.waiting} == set(self.waiting)
        assert all(count == 1 for count in self.left.values())
        assert len(self.left) + len(self.waiting) == self.tickets

    def teardown(self) -> None:
        while self.waiting:
            while len(self.running) == 2:
                self.finish(1.0)
            assignment = self.taken()
            self.now_s = max(self.now_s, assignment.wait_until_s)
        assert len(self.left) == self.tickets


class ConservationOfAssigned(Conservation):
    """The same where requests are assigned when they arrive."""

    policy = "round_robin"


TestConservation = Conservation.TestCase
TestConservationOfAssigned = ConservationOfAssigned.TestCase
TestConservation.settings = TestConservationOfAssigned.settings = examples(
    40, stateful_step_count=30
)


# Traffic.


class Stream(NamedTuple):
    """Requests that all demand the same, `rate` a second."""

    model: str
    rate: float
    demands: Constraints
    from_s: float = 0.0
    once: bool = False


class Fate(NamedTuple):
    stream: int
    kept: bool
    variant: str
    waited_s: float
    lane_ms: float


def serve(streams: Sequence[Stream], served: Scheduler, seconds: float) -> list[Fate]:
    """What becomes of each request, on lanes that take what the cards say give or take 5 %."""
    rng = Random(1)
    arrivals: list[tuple[float, int]] = []
    for index, stream in enumerate(streams):
        at_s = stream.from_s
        while at_s < seconds:
            arrivals.append((at_s, index))
            at_s += math.inf if stream.once else rng.expovariate(stream.rate)
    arrivals.sort(reverse=True)
    fates: list[Fate] = []
    came: dict[int, tuple[float, int]] = {}
    idle = list(range(len(served.busy_until_s)))
    running: list[tuple[float, int, Assignment, float]] = []
    ticket = 0
    while arrivals or running or served.queue.waiting:
        now_s = min(
            arrivals[-1][0] if arrivals else math.inf, running[0][0] if running else math.inf
        )
        while arrivals and arrivals[-1][0] <= now_s:
            _, index = arrivals.pop()
            model, _, demands, *_ = streams[index]
            decision = served.route(model, demands, 1, now_s)
            if decision.verdict == "accepted":
                served.submit((served.waiting(decision, demands, 1, ticket, now_s),), now_s)
                came[ticket] = now_s, index
                ticket += 1
            else:
                fates.append(Fate(index, False, "", 0.0, 0.0))
        while running and running[0][0] <= now_s:
            end_s, lane, done, took_ms = heapq.heappop(running)
            idle.append(lane)
            served.finished(done, took_ms, end_s)
            for waiting in done.members:
                came_s, index = came.pop(waiting.ticket)
                kept = end_s <= waiting.deadline_s + 1e-9
                share = took_ms / len(done.members)
                fates.append(Fate(index, kept, done.variant, end_s - came_s, share))
        while idle and served.queue.waiting:
            taken = served.take(idle[-1], now_s)
            for waiting in taken.expired:
                came_s, index = came.pop(waiting.ticket)
                fates.append(Fate(index, False, "", now_s - came_s, 0.0))
            if taken.members:
                typical = plate_ms(taken)
                took_ms = typical * rng.lognormvariate(0, 0.05)
                heapq.heappush(running, (now_s + took_ms / 1000, idle.pop(), taken, took_ms))
    assert not came
    return fates


def plate_ms(taken: Assignment) -> float:
    return 0.1 + VARIANTS[taken.variant][1] * len(taken.members)


HURRY = Constraints(max_latency_ms=30.0)


def kept(fates: Sequence[Fate], stream: int) -> float:
    own = [fate for fate in fates if fate.stream == stream]
    return sum(fate.kept for fate in own) / len(own)


def best(fates: Sequence[Fate], stream: int) -> float:
    """Share of the answers that came from the variant that a quiet machine would use."""
    own = [fate for fate in fates if fate.stream == stream and fate.kept]
    return sum(fate.variant in ("fp32", BEST) for fate in own) / len(own)


def test_a_quiet_machine_answers_all_by_the_best() -> None:
    fates = serve([Stream("b", 200, HURRY)], scheduler("a", "b"), 1.0)
    assert kept(fates, 0) == best(fates, 0) == 1.0


def test_another_models_flood_costs_a_modest_one_neither_answers_nor_accuracy() -> None:
    """`a` sends half as much again as the lanes can do by its fastest variant; `b` a little.

    Now and then `b` finds both lanes with a batch just begun, and loses some accuracy to that.
    """
    streams = [Stream("a", 60_000, HURRY), Stream("b", 200, HURRY)]
    fates = serve(streams, scheduler("a", "b"), 0.5)
    assert kept(fates, 0) < 0.8
    assert kept(fates, 1) >= 0.99
    assert best(fates, 1) >= 0.85


def test_a_modest_load_takes_no_more_from_another_model_than_its_own_time() -> None:
    """`a` keeps all but what `b` uses: it is not held to its share while lanes would be idle."""
    alone = serve([Stream("a", 10_000, HURRY)], scheduler("a", "b"), 0.5)
    streams = [Stream("a", 10_000, HURRY), Stream("b", 20, HURRY)]
    beside = serve(streams, scheduler("a", "b"), 0.5)

    def accuracy(fates: Sequence[Fate]) -> float:
        own = [VARIANTS[f.variant][0] for f in fates if f.stream == 0 and f.kept]
        return sum(own) / len(own)

    assert kept(beside, 0) == kept(alone, 0) == 1.0
    assert accuracy(beside) >= accuracy(alone) - 0.001


@pytest.mark.parametrize("floor", [None, 0.93])
def test_the_heavier_of_two_floods_gets_more_of_the_lanes(floor: float | None) -> None:
    """Weights 3 : 1. The shares come from who is let in; they are not held exactly."""
    demands = Constraints(max_latency_ms=30.0, min_accuracy=None if floor is None else Floor(floor))
    rate = 60_000 if floor is None else 10_000
    streams = [Stream("a", rate, demands), Stream("b", rate, demands)]
    fates = serve(streams, scheduler("a", "b", weights={"a": 3.0}), 0.4)
    time_a, time_b = (sum(f.lane_ms for f in fates if f.stream == n) for n in (0, 1))
    assert 1.7 <= time_a / time_b <= 5.5


def test_under_overload_high_is_kept_and_low_is_shed() -> None:
    streams = [
        Stream("a", 5_000, Constraints(max_latency_ms=30.0, priority="high")),
        Stream("a", 60_000, Constraints(max_latency_ms=30.0, priority="low")),
    ]
    fates = serve(streams, scheduler("a"), 0.4)
    assert kept(fates, 0) >= 0.99
    assert kept(fates, 1) < 0.7


@pytest.mark.parametrize("rate", [20_000, 60_000])
@pytest.mark.parametrize("model", ["a", "b"])
def test_one_without_a_deadline_gets_its_turn_whatever_arrives(rate: float, model: str) -> None:
    """It goes behind urgent ones for as long as its patience lasts, and then for one batch."""
    longest_ms = 0.1 + VARIANTS["fp32"][1] * 32
    streams = [
        Stream("a", rate, Constraints(max_latency_ms=30.0, priority="high")),
        Stream(model, 1, Constraints(priority="low"), from_s=0.05, once=True),
    ]
    fates = serve(streams, scheduler("a", "b", lanes=1), 1.2)
    (patient,) = [fate for fate in fates if fate.stream == 1]
    assert patient.kept
    assert patient.waited_s <= PATIENCE_S + 2 * longest_ms / 1000


def test_a_slowness_that_keeps_everybody_out_is_doubted_when_nothing_runs() -> None:
    own = scheduler("m")
    demands = Constraints(max_latency_ms=30.0)
    for number in range(40):  # a load under which the processor was somebody else's
        own.telemetry.batch("m", "tiny", 0.15, 0.2, 400.0, number * 0.01)
    assert own.route("m", demands, 1, 0.5).verdict == "overloaded"  # it may still be so
    assert own.route("m", demands, 1, 2.0).verdict == "accepted"


def test_a_slowness_is_believed_while_it_keeps_nobody_out() -> None:
    own = scheduler("m")
    for number in range(40):
        own.telemetry.batch("m", BEST, 0.67, 0.8, 6.7, number * 0.01)
    before = own.telemetry.slowdown("m", [BEST], 0.5)
    assert own.route("m", Constraints(max_latency_ms=1000.0), 1, 2.0).verdict == "accepted"
    assert own.telemetry.slowdown("m", [BEST], 2.0) == before


# Those who are in no hurry.


def submitted(
    own: Scheduler, demands: Constraints, rows: int, now_s: float, ticket: int = 0
) -> Waiting:
    decision = own.route("m", demands, rows, now_s)
    placed = own.waiting(decision, demands, rows, ticket, now_s)
    own.submit((placed,), now_s)
    return placed


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize(
    ("limit_ms", "rows"), [(None, 1), (None, 100), (None, 5000), (None, 100_000), (10_000.0, 5000)]
)
def test_on_idle_lanes_many_rows_in_no_hurry_cost_no_accuracy(
    limit_ms: float | None, rows: int, lanes: int
) -> None:
    own = scheduler("m", lanes=lanes)
    demands = Constraints(max_latency_ms=limit_ms)
    for ticket in range(lanes):  # nor does another that has a lane to itself
        submitted(own, demands, rows, 10.0, ticket)
    for lane in range(lanes):
        assert own.take(lane, 10.001).variant == BEST
        own.busy_until_s[lane] = 1000.0


def test_one_that_waited_longer_than_its_patience_keeps_its_accuracy_when_nobody_waits() -> None:
    own = scheduler("m", lanes=1)
    submitted(own, Constraints(), 5000, 10.0)
    assert own.take(0, 12.0).variant == BEST


def test_who_is_in_a_hurry_does_not_pay_for_one_who_is_not() -> None:
    own = scheduler("m")
    submitted(own, Constraints(), 5000, 10.0)
    urgent = submitted(own, HURRY, 1, 10.0, 1)
    taken = own.take(0, 10.0)
    assert (taken.members, taken.variant) == ((urgent,), BEST)


@pytest.mark.parametrize(("lanes", "keeps"), [(1, False), (2, True)])
def test_many_rows_give_way_where_those_in_a_hurry_would_suffer(lanes: int, keeps: bool) -> None:
    """On the only lane those likely to come would all be late; on one of two they are not."""
    own = scheduler("m", lanes=lanes)
    for ticket in range(100):
        submitted(own, HURRY, 1, 10.0 + ticket / 100, ticket)
        own.finished(own.take(0, 10.0 + ticket / 100), 0.67, 10.001 + ticket / 100)
    submitted(own, Constraints(), 5000, 11.0, 200)
    own.busy_until_s = [0.0] * lanes
    assert (own.take(0, 11.001).variant == BEST) is keeps


def test_those_in_no_hurry_give_way_to_each_other_when_they_are_too_many() -> None:
    own = scheduler("m")
    for ticket in range(20):
        submitted(own, Constraints(), 1000, 10.0, ticket)
    assert own.take(0, 10.0).variant != BEST
