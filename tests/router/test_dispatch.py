"""The late decision: what a free lane runs, who joins the batch, who is too late."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from router.dispatch import REACH, Assignment, Pace, Waiting, dispatch, order
from tests.router.builders import menu, offer

SLOW = offer("slow", 0.96, first_ms=8.0, row_ms=2.0, tail=1.25)
FAST = offer("fast", 0.90, first_ms=1.0, row_ms=0.5, tail=1.25)
MENU = menu(SLOW, FAST)
PACES = {"m": Pace(MENU, {}, frozenset({"slow", "fast"}))}
BOTH = ("slow", "fast")


def waiting(
    ticket: int,
    slack_ms: float = math.inf,
    choices: tuple[str, ...] = BOTH,
    rows: int = 1,
    model: str = "m",
    soft: bool = False,
) -> Waiting:
    deadline_s = slack_ms / 1000
    return Waiting(ticket, model, rows, min(deadline_s, 1.0), deadline_s, choices, soft)


def run(*queue: Waiting, paces: dict[str, Pace] = PACES, max_batch: int = 8) -> Assignment:
    return dispatch(sorted(queue, key=order), 0.0, paces, max_batch=max_batch, overhead_ms=0.0)


def tickets(members: tuple[Waiting, ...]) -> list[int]:
    return [member.ticket for member in members]


def test_with_time_to_spare_the_first_choice_runs() -> None:
    assert run(waiting(0, 20)).variant == "slow"
    assert run(waiting(0)).variant == "slow"


def test_with_less_slack_a_faster_choice_runs() -> None:
    assert run(waiting(0, 5)).variant == "fast"


def test_a_choice_the_constraints_do_not_allow_is_never_taken() -> None:
    assignment = run(waiting(0, 5, choices=("slow",)))
    assert assignment.members == ()
    assert tickets(assignment.expired) == [0]


def test_below_the_promised_percentile_the_fastest_still_tries_at_the_median() -> None:
    assert run(waiting(0, 1.1)).variant == "fast"
    assert tickets(run(waiting(0, 0.9)).expired) == [0]


def test_a_soft_deadline_is_run_late_rather_than_not_at_all() -> None:
    assert run(waiting(0, 0.01, soft=True)).variant == "fast"


def test_the_most_urgent_goes_first_and_equals_by_age() -> None:
    assert tickets(run(waiting(1, 30), waiting(0, 12), max_batch=1).members) == [0]
    assert tickets(run(waiting(7, 30), waiting(3, 30), max_batch=1).members) == [3]


def test_those_who_want_the_same_variant_share_the_batch() -> None:
    assignment = run(waiting(0, 100), waiting(1, 100), waiting(2, 100))
    assert (assignment.variant, tickets(assignment.members)) == ("slow", [0, 1, 2])
    assert assignment.promised_ms == SLOW.promised_ms[3]


def test_nobody_is_answered_less_well_for_company() -> None:
    # The head has time for the fast one only; the other has time for the slow one, and keeps it.
    assert tickets(run(waiting(0, 5), waiting(1, 100)).members) == [0]


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


def test_models_do_not_share_a_batch() -> None:
    paces = PACES | {"n": Pace(MENU, {}, frozenset(BOTH))}
    assignment = run(waiting(0), waiting(1, model="n"), waiting(2), paces=paces)
    assert tickets(assignment.members) == [0, 2]


def test_a_slowdown_counts() -> None:
    slowed = {"m": Pace(MENU, {"slow": 3.0}, frozenset(BOTH))}
    assert run(waiting(0, 20), paces=slowed).variant == "fast"


def test_a_variant_that_is_not_ready_is_not_run() -> None:
    assert run(waiting(0), paces={"m": Pace(MENU, {}, frozenset({"fast"}))}).variant == "fast"
    assert tickets(run(waiting(0), paces={}).expired) == [0]


def test_nothing_queued_is_nothing_to_run() -> None:
    assert dispatch([], 0.0, PACES, max_batch=8, overhead_ms=0.0).members == ()


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    slacks = draw(st.lists(st.just(math.inf) | st.floats(-5, 60), max_size=40))
    return sorted(
        (
            waiting(
                number,
                slack,
                draw(st.sampled_from([BOTH, ("slow",), ("fast",)])),
                draw(st.integers(1, 12)),
            )
            for number, slack in enumerate(slacks)
        ),
        key=order,
    )


@given(queues(), st.integers(1, 8))
def test_laws_of_a_dispatch(queue: list[Waiting], max_batch: int) -> None:
    assignment = dispatch(queue, 0.0, PACES, max_batch=max_batch, overhead_ms=0.0)
    members, expired = assignment.members, assignment.expired
    assert not set(tickets(members)) & set(tickets(expired))
    if queue:
        assert members or expired, "a queue is never left as it was"
    for member in members:
        assert assignment.variant in member.choices
    if len(members) > 1:
        assert sum(member.rows for member in members) <= max_batch
        for member in members:
            assert assignment.promised_ms <= member.deadline_s * 1000 + 1e-9
    for late in expired:
        fastest = min(MENU.by_name[name].typical_ms[1] for name in late.choices)
        assert late.deadline_s * 1000 < fastest * max(1, late.rows)


def test_filling_a_batch_looks_only_so_far_back() -> None:
    big = [waiting(n, rows=8) for n in range(REACH + 50)]
    late_small = waiting(REACH + 100)
    assert tickets(run(waiting(0, 50), *big[1:], late_small).members) == [0]
