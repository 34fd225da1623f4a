"""The late decision: what a free lane runs, who joins the batch, who is too late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from router.choices import Choices, eligible, in_order
from router.constraints import Constraints, Floor, Priority
from router.dispatch import REACH, Assignment, Moment, dispatch
from router.menu import Menu, batch_ms
from router.pace import Pace
from router.queue import Expected, Waiting
from tests.laws import examples
from tests.router.builders import dominated, menu, offer

SLOW = offer("slow", 0.96, first_ms=8.0, row_ms=2.0, tail=1.25)
FAST = offer("fast", 0.90, first_ms=1.0, row_ms=0.5, tail=1.25)
MENU = menu(SLOW, FAST)
BOTH = eligible(Constraints(), "accuracy", MENU, 0.0, 1).choices
ONLY_SLOW = eligible(Constraints(variant="slow"), "accuracy", MENU, 0.0, 1).choices
ONLY_FAST = eligible(Constraints(variant="fast"), "accuracy", MENU, 0.0, 1).choices
QUICK = eligible(Constraints(), "latency", MENU, 0.0, 1).choices
READY = frozenset({"slow", "fast"})
PACES = {"m": Pace(MENU, {}, READY)}
MOMENT = Moment(0.0, (0.0,), PACES, max_batch=8)


def waiting(
    ticket: int,
    slack_ms: float = math.inf,
    choices: Choices = BOTH,
    rows: int = 1,
    priority: Priority = "normal",
    soft: bool = False,
) -> Waiting:
    deadline_s = slack_ms / 1000
    return Waiting(
        min(deadline_s, 1.0),
        ticket,
        rows,
        deadline_s,
        choices,
        choices.offers[0].name,
        priority,
        soft,
    )


def run(*queue: Waiting, moment: Moment = MOMENT) -> Assignment:
    return dispatch(sorted(queue), moment)


def tickets(members: Sequence[Waiting]) -> list[int]:
    return [member.ticket for member in members]


def test_with_time_to_spare_the_first_choice_runs() -> None:
    assert run(waiting(0, 20)).variant == "slow"
    assert run(waiting(0)).variant == "slow"


def test_with_less_slack_a_faster_choice_runs() -> None:
    assert run(waiting(0, 5)).variant == "fast"


def test_a_choice_the_constraints_do_not_allow_is_never_taken() -> None:
    assignment = run(waiting(0, 5, ONLY_SLOW))
    assert assignment.members == ()
    assert tickets(assignment.expired) == [0]


def test_below_the_promised_percentile_the_fastest_still_tries_at_the_median() -> None:
    assert run(waiting(0, 1.1)).variant == "fast"
    assert tickets(run(waiting(0, 0.9)).expired) == [0]


def test_a_soft_deadline_is_run_late_rather_than_not_at_all() -> None:
    assert run(waiting(0, 0.01, soft=True)).variant == "fast"


def test_the_way_back_to_the_caller_takes_its_time() -> None:
    back = replace(MOMENT, overhead_ms=10.0)
    assert run(waiting(0, 20), moment=back).variant == "slow"
    assert run(waiting(0, 19), moment=back).variant == "fast"
    assert tickets(run(waiting(0, 10.9), moment=back).expired) == [0]


def test_the_most_urgent_goes_first_and_equals_by_age() -> None:
    one = replace(MOMENT, max_batch=1)
    assert tickets(run(waiting(1, 60), waiting(0, 40), moment=one).members) == [0]
    assert tickets(run(waiting(7, 60), waiting(3, 60), moment=one).members) == [3]


def test_those_who_want_the_same_variant_share_the_batch() -> None:
    assignment = run(waiting(0, 100), waiting(1, 100), waiting(2, 100))
    assert (assignment.variant, tickets(assignment.members)) == ("slow", [0, 1, 2])
    assert assignment.promised_ms == SLOW.promised_ms[3]


def test_different_demands_share_a_batch_when_one_variant_suits_all() -> None:
    """The choices differ, in length and in order; what they choose now does not."""
    floor = eligible(Constraints(min_accuracy=Floor(0.93)), "accuracy", MENU, 0.0, 1).choices
    assignment = run(waiting(0, 100), waiting(1, 90, ONLY_SLOW), waiting(2, 110, floor))
    assert (assignment.variant, tickets(assignment.members)) == ("slow", [1, 0, 2])
    hurried = run(waiting(0, 6, QUICK), waiting(1, 5), waiting(2, 5.5, ONLY_FAST))
    assert (hurried.variant, hurried.expired) == ("fast", ())
    assert set(tickets(hurried.members)) >= {1, 2}


def test_nobody_is_answered_less_well_for_company() -> None:
    # The head has time for the fast one only; the other has time for the slow one, and keeps it.
    assert tickets(run(waiting(0, 5), waiting(1, 100)).members) == [0]
    # Not even when the head has not the time for its share of a slow batch.
    hurried = run(waiting(0, 2), waiting(1, 100))
    assert hurried.plan is not None
    assert (tickets(hurried.members), hurried.plan.prices) == ([0], {"m": 0.0})
    # Nor is one whose choices do not hold the head's variant.
    assert tickets(run(waiting(0, 5), waiting(1, 100, ONLY_SLOW)).members) == [0]


def test_those_with_as_little_time_share_the_faster_batch() -> None:
    """It is what each of them would take alone."""
    queue = [waiting(n, 6) for n in range(6)]
    assignment = run(*queue, waiting(6, 100))
    assert (assignment.variant, tickets(assignment.members)) == ("fast", [0, 1, 2, 3, 4, 5])


def test_a_longer_batch_must_still_make_the_heads_deadline() -> None:
    # 10 ms alone, 12.5 ms for two: the head has 11.
    assert tickets(run(waiting(0, 11), waiting(1, 100)).members) == [0]
    assert tickets(run(waiting(0, 13), waiting(1, 100)).members) == [0, 1]


def test_batches_hold_at_most_so_many_rows() -> None:
    assignment = run(*(waiting(n, rows=3) for n in range(4)))
    assert sum(member.rows for member in assignment.members) == 6
    smaller_fits = run(waiting(0, rows=6), waiting(1, rows=3), waiting(2, rows=2))
    assert tickets(smaller_fits.members) == [0, 2]


def test_a_request_larger_than_a_batch_runs_alone() -> None:
    assert tickets(run(waiting(0, rows=20), waiting(1)).members) == [0]


def test_idle_lanes_share_what_waits() -> None:
    two = replace(MOMENT, lane_free_in_ms=(0.0, 0.0))
    queue = [waiting(n, 100) for n in range(4)]
    assert tickets(run(*queue, moment=two).members) == [0, 1]
    busy = replace(MOMENT, lane_free_in_ms=(0.0, 3.0))
    assert len(run(*queue, moment=busy).members) == 4


def test_models_do_not_share_a_batch() -> None:
    other = menu(replace(SLOW), replace(FAST), model="n")
    theirs = eligible(Constraints(), "accuracy", other, 0.0, 1).choices
    both = replace(MOMENT, paces=PACES | {"n": Pace(other, {}, READY)})
    assignment = run(waiting(0), waiting(1, choices=theirs), waiting(2), moment=both)
    assert (assignment.model, tickets(assignment.members)) == ("m", [0, 2])


def test_a_slowdown_counts_and_so_does_a_heavier_tail() -> None:
    slowed = replace(MOMENT, paces={"m": Pace(MENU, {"slow": 3.0}, READY)})
    assert run(waiting(0, 20), moment=slowed).variant == "fast"
    tailed = replace(MOMENT, paces={"m": Pace(MENU, {}, READY, 2.5)})
    assert run(waiting(0, 20), moment=tailed).variant == "fast"


def test_a_variant_that_is_not_ready_is_not_run() -> None:
    partly = replace(MOMENT, paces={"m": Pace(MENU, {}, frozenset({"fast"}))})
    assert run(waiting(0), moment=partly).variant == "fast"
    assert tickets(run(waiting(0, choices=ONLY_SLOW), moment=partly).expired) == [0]
    assert tickets(run(waiting(0), moment=replace(MOMENT, paces={})).expired) == [0]


def test_nothing_queued_is_nothing_to_run() -> None:
    assert dispatch([], MOMENT) == Assignment()


def test_with_many_behind_it_the_head_gives_way() -> None:
    """It has the time for its best, but they would not all be in time."""
    crowd = [waiting(n, 30) for n in range(40)]
    assert run(*crowd[:2]).variant == "slow"
    assert run(*crowd).variant == "fast"


def test_what_is_likely_to_come_counts_as_what_waits() -> None:
    alone = waiting(0, 20)
    assert run(alone).variant == "slow"
    flood = (Expected(BOTH, 20.0, 1.0),)
    assert run(alone, moment=replace(MOMENT, expected=flood)).variant == "fast"


def test_under_overload_high_goes_before_low() -> None:
    """Whatever their deadlines: those of the lowest priority are shed."""
    low = [waiting(n, 9, ONLY_SLOW, rows=8, priority="low") for n in range(10)]
    low += [waiting(20 + n, 40, ONLY_SLOW, priority="low") for n in range(100)]
    high = [waiting(200, 60, ONLY_SLOW, priority="high"), waiting(201, 61, ONLY_SLOW)]
    assignment = run(*low, *high)
    assert assignment.plan is not None
    assert assignment.plan.crowded
    assert tickets(assignment.members)[:2] == [200, 201]
    assert run(*low[10:12], *high).members[0].ticket == 20


def test_a_modest_model_is_served_however_long_the_queue_before_it() -> None:
    """Another model's flood is shed, not what is within its share."""
    other = menu(replace(SLOW), replace(FAST), model="n")
    theirs = eligible(Constraints(), "accuracy", other, 0.0, 1).choices
    both = replace(MOMENT, paces=PACES | {"n": Pace(other, {}, READY)})
    flood = [waiting(n, 30) for n in range(3000)]
    assignment = run(*flood, waiting(5000, 60, theirs), moment=both)
    assert assignment.plan is not None
    assert assignment.plan.over == {"m"}
    assert (assignment.model, assignment.variant) == ("n", "slow")
    assert tickets(assignment.members) == [5000]


def test_who_is_overdue_goes_before_high() -> None:
    """One without a deadline is shed by nobody for ever."""
    high = [waiting(n, 40, ONLY_SLOW, priority="high") for n in range(100)]
    patient = replaced(waiting(200, priority="low"), due_s=-0.1)
    assert tickets(run(*high, patient).members)[0] == 200
    young = replaced(waiting(200, priority="low"), due_s=0.001)
    assert tickets(run(*high, young).members)[0] != 200


def replaced(waiting: Waiting, due_s: float) -> Waiting:
    return waiting._replace(due_s=due_s)


def test_of_those_who_cannot_all_be_served_a_decent_batch_goes_first() -> None:
    """Lanes that run behind with requests that are only just in time would run them one by one."""
    doomed = [waiting(n, 10.1, ONLY_SLOW) for n in range(20)]
    timely = [waiting(50 + n, 40, ONLY_SLOW) for n in range(20)]
    assert tickets(run(*doomed, *timely).members) == list(range(50, 58))


def test_one_that_optimises_cost_waits_for_company() -> None:
    """Where company is likely before it must run; one without a deadline does not wait."""
    thrifty = eligible(Constraints(), "cost", MENU, 0.0, 1).choices
    coming = replace(MOMENT, expected=(Expected(thrifty, 100.0, 0.05),))
    held = run(waiting(0, 100, thrifty), moment=coming)
    assert held.members == held.expired == ()
    full_ms = FAST.promised_ms[8]
    assert held.wait_until_s == (100 - 2 * full_ms) / 1000
    assert run(waiting(0, 100, thrifty)).variant == "fast"
    assert run(waiting(0, 2 * full_ms, thrifty), moment=coming).variant == "fast"
    assert run(waiting(0, choices=thrifty), moment=coming).variant == "fast"
    # Nor does one longer than anybody's patience, nor without looking again whether company comes.
    long = replaced(waiting(0, 60_000, thrifty), due_s=1.0)
    rare = replace(MOMENT, expected=(Expected(thrifty, 60_000.0, 0.001),))
    assert run(long, moment=rare).variant == "fast"
    often = replace(MOMENT, expected=(Expected(thrifty, 60_000.0, 0.05),))
    assert run(long, moment=often).wait_until_s == 0.1
    assert run(long, moment=replace(often, now_s=0.999)).variant == "fast"
    # A full batch waits for nobody; one of another mind takes those along that it suits.
    full = [waiting(n, 100, thrifty) for n in range(8)]
    assert len(run(*full, moment=coming).members) == 8
    joined = run(waiting(0, 100, thrifty), waiting(1, 120, ONLY_FAST), moment=coming)
    assert tickets(joined.members) == [1, 0]


KINDS = (BOTH, ONLY_SLOW, ONLY_FAST, QUICK)


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    slacks = draw(st.lists(st.just(math.inf) | st.floats(-5, 60), max_size=40))
    return sorted(
        waiting(
            number,
            slack,
            draw(st.sampled_from(KINDS)),
            draw(st.integers(1, 12)),
            draw(st.sampled_from(("high", "normal", "low"))),
            draw(st.booleans()),
        )
        for number, slack in enumerate(slacks)
    )


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    names = ("slow", "fast")
    slowdown = draw(st.dictionaries(st.sampled_from(names), st.floats(0.5, 4.0)))
    ready = frozenset(draw(st.sets(st.sampled_from(names), min_size=1)))
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=2, unique=True))
    others = draw(st.lists(st.just(0.0) | st.floats(0, 30), max_size=3))
    return Moment(
        0.0,
        (0.0, *others),
        {"m": Pace(MENU, slowdown, ready, draw(st.floats(0.8, 2.0)))},
        [Expected(kind, draw(st.floats(1, 60)), draw(st.floats(0.001, 1))) for kind in kinds],
        draw(st.integers(1, 8)),
        draw(st.floats(0, 3)),
    )


@examples(300)
@given(queues(), moments())
def test_laws_of_a_dispatch(queue: list[Waiting], moment: Moment) -> None:
    assignment = dispatch(queue, moment)
    members, expired = assignment.members, assignment.expired
    pace = moment.paces["m"]
    assert len({*tickets(members), *tickets(expired)}) == len(members) + len(expired)
    assert all(any(one is waiting for waiting in queue) for one in (*members, *expired))
    if queue:
        assert members or expired, "a queue is never left as it was"
    for member in members:
        assert assignment.variant in [o.name for o in member.choices.offers]
        assert assignment.variant in pace.ready
        assert member.choices.model == assignment.model
    rows = sum(member.rows for member in members)
    if members:
        ran = MENU.by_name[assignment.variant]
        assert assignment.promised_ms == pace.promised_ms(ran, rows)
        slack_ms = [member.deadline_s * 1000 - moment.overhead_ms for member in members]
        if len(members) > 1:
            assert rows <= moment.max_batch
            for late_ms, member in zip(slack_ms, members, strict=True):
                # Only a head whose caller takes a late answer may be late.
                assert assignment.promised_ms <= late_ms + 1e-9 or (
                    member is members[0] and member.soft
                )
        elif not members[0].soft:
            assert pace.typical_ms(ran, rows) <= slack_ms[0] + 1e-9
    for late in expired:
        assert late.deadline_s < math.inf or not any(
            o.name in pace.ready for o in late.choices.offers
        )
        for one in late.choices.offers:
            if one.name in pace.ready:
                assert not late.soft
                took_ms = batch_ms(one.typical_ms, late.rows) * pace.slowdown.get(one.name, 1.0)
                assert took_ms > late.deadline_s * 1000 - moment.overhead_ms
    plan = assignment.plan
    left = queue[len(expired) :]
    if plan is not None and not plan.crowded:
        assert members[0] is left[0], "the most urgent is served"


@given(queues(), moments(), st.randoms(use_true_random=False))
def test_the_same_moment_gives_the_same_assignment(
    queue: list[Waiting], moment: Moment, random: st.DataObject
) -> None:
    """And neither the order of the lanes nor that of what is expected matters."""
    first = dispatch(queue, moment)
    assert first == dispatch(queue, moment)
    lanes, kinds = list(moment.lane_free_in_ms), list(moment.expected)
    random.shuffle(lanes)  # type: ignore[attr-defined]
    random.shuffle(kinds)  # type: ignore[attr-defined]
    again = dispatch(queue, replace(moment, lane_free_in_ms=tuple(lanes), expected=kinds))
    assert (again.variant, again.members, again.expired) == (
        first.variant,
        first.members,
        first.expired,
    )


@given(queues(), moments(), st.booleans())
def test_a_dominated_variant_changes_nothing(
    queue: list[Waiting], moment: Moment, of_slow: bool
) -> None:
    """Slower, dearer and less accurate than one that every request that may take it may take."""
    worse = dominated(SLOW if of_slow else FAST, "worse")
    more = menu(SLOW, FAST, worse)
    wider = {
        id(BOTH): in_order(more, [SLOW, FAST, worse]),
        id(ONLY_SLOW): in_order(more, [SLOW, worse] if of_slow else [SLOW]),
        id(ONLY_FAST): in_order(more, [FAST] if of_slow else [FAST, worse]),
        id(QUICK): in_order(more, [FAST, SLOW, worse]),
    }
    narrow = {
        id(BOTH): in_order(MENU, [SLOW, FAST]),
        id(ONLY_SLOW): in_order(MENU, [SLOW]),
        id(ONLY_FAST): in_order(MENU, [FAST]),
        id(QUICK): in_order(MENU, [FAST, SLOW]),
    }

    def decided(by: dict[int, Choices], plate: Menu, ready: frozenset[str]) -> object:
        pace = moment.paces["m"]
        better = SLOW if of_slow else FAST
        slowdown = {**pace.slowdown, "worse": pace.slowdown.get(better.name, 1.0)}
        kinds = [kind._replace(choices=by[id(kind.choices)]) for kind in moment.expected]
        assignment = dispatch(
            [one._replace(choices=by[id(one.choices)]) for one in queue],
            replace(moment, paces={"m": Pace(plate, slowdown, ready, pace.tail)}, expected=kinds),
        )
        plan = assignment.plan
        return (
            assignment.variant,
            tickets(assignment.members),
            tickets(assignment.expired),
            plan and (plan.prices, plan.spare_ms, plan.crowded),
        )

    ready = moment.paces["m"].ready
    with_worse = ready | {"worse"} if (SLOW if of_slow else FAST).name in ready else ready
    assert decided(wider, more, with_worse) == decided(narrow, MENU, ready)


def test_filling_a_batch_looks_only_so_far_back() -> None:
    """Further back, where there is time to spare, a small one may wait for its turn."""
    big = [waiting(n, rows=8) for n in range(REACH + 50)]
    late_small = waiting(REACH + 100)
    assert tickets(run(waiting(0, 50), *big[1:], late_small).members) == [0]
