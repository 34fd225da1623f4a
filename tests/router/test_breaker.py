"""The breaker's laws: it opens on evidence, always comes back, and never because of one request."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from router.breaker import Breaker, Breakers, Outcome, Terms

TERMS = Terms()
OUTCOMES: list[Outcome] = ["success", "failure", "fatal", "none"]

steps = st.lists(st.tuples(st.sampled_from(OUTCOMES), st.floats(0, 100)), max_size=80)


def _opened(failures: int = TERMS.failures, now_s: float = 0.0) -> Breaker:
    breaker = Breaker(since_s=-1e9)
    for _ in range(failures):
        breaker = breaker.after("failure", now_s, TERMS)
    return breaker


def test_opens_after_failures_in_a_row_and_not_before() -> None:
    assert _opened(TERMS.failures - 1).state == "closed"
    assert _opened().state == "open"


def test_a_success_between_them_starts_the_row_anew() -> None:
    breaker = _opened(2).after("success", 0.0, TERMS)
    assert breaker.after("failure", 0.0, TERMS).after("failure", 0.0, TERMS).state == "closed"


def test_half_of_many_opens_it_though_never_in_a_row() -> None:
    breaker = Breaker(since_s=-1e9)
    outcomes: list[Outcome] = ["failure", "success"] * 20
    states = []
    for outcome in outcomes:
        breaker = breaker.after(outcome, 0.0, TERMS)
        states.append(breaker.state)
    assert states.index("open") == TERMS.window // 2


def test_one_in_three_does_not() -> None:
    breaker = Breaker(since_s=-1e9)
    outcomes: list[Outcome] = ["failure", "success", "success"] * 50
    for outcome in outcomes:
        breaker = breaker.after(outcome, 0.0, TERMS)
        assert breaker.state == "closed"


def test_one_hang_opens_it() -> None:
    assert Breaker().after("fatal", 0.0, TERMS).state == "open"


def test_backoff_doubles_up_to_the_longest_and_starts_anew_after_a_good_while() -> None:
    breaker, now_s, waits = _opened(), 0.0, []
    for _ in range(10):
        waits.append(breaker.until_s - now_s)
        now_s = breaker.until_s
        breaker = breaker.at(now_s).after("failure", now_s, TERMS)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    now_s = breaker.until_s
    breaker = breaker.at(now_s).after("success", now_s, TERMS)
    # Down again at once, the wait goes on; after long service it starts anew.
    for later_s, wait_s in ((1.0, 60.0), (TERMS.longest_s + 1, 1.0)):
        again = breaker
        for _ in range(TERMS.failures):
            again = again.after("failure", now_s + later_s, TERMS)
        assert again.until_s - now_s - later_s == wait_s


@given(steps)
def test_no_state_is_without_a_way_out(taken: list[tuple[Outcome, float]]) -> None:
    """Whatever happened: after a wait and one batch that succeeds, it is closed."""
    breaker, now_s = Breaker(), 0.0
    for outcome, later_s in taken:
        now_s += later_s
        breaker = breaker.at(now_s).after(outcome, now_s, TERMS)
        assert breaker.until_s <= now_s + TERMS.longest_s
        assert len(breaker.recent) <= TERMS.window
    now_s = max(now_s, breaker.until_s)
    assert breaker.at(now_s).after("success", now_s, TERMS).state == "closed"


@given(steps)
def test_only_failures_open_it(taken: list[tuple[Outcome, float]]) -> None:
    breaker, now_s = Breaker(), 0.0
    for outcome, later_s in taken:
        now_s += later_s
        before = breaker.at(now_s)
        breaker = before.after(outcome, now_s, TERMS)
        if breaker.state == "open" and before.state != "open":
            assert outcome in ("failure", "fatal")
        if before.state != "open" and outcome == "none":
            assert breaker.state == before.state
            assert not breaker.probed


@given(steps)
def test_what_has_served_long_enough_is_forgotten(taken: list[tuple[Outcome, float]]) -> None:
    """A gateway that runs for ever does not remember for ever."""
    breakers, now_s = Breakers(TERMS), 0.0
    for outcome, later_s in taken:
        now_s += later_s
        breakers.ended("echo", "fp32", outcome, now_s)
    for _ in range(TERMS.window + 3):
        now_s += TERMS.longest_s + 1
        breakers.ended("echo", "fp32", "success", now_s)
    assert not breakers


def test_half_open_lets_one_batch_through_at_a_time() -> None:
    breakers = Breakers(TERMS)
    for _ in range(3):
        breakers.ended("echo", "fp32", "failure", 0.0)
    assert breakers.shut_out("echo", 0.9) == {"fp32"}
    assert breakers.report(0.9) == {"echo/fp32": "open"}
    assert breakers.report(1.0) == {"echo/fp32": "half-open"}
    assert breakers.retry_after_s("echo", ("fp32", "int8"), 0.25) == 0.75
    assert breakers.shut_out("echo", 1.0) == breakers.probed("echo", 1.0) == frozenset()
    breakers.taken("echo", "fp32", 1.0)
    assert breakers.probed("echo", 1.1) == {"fp32"}
    # It told nothing, as its caller's own inputs were to blame: the next one tries.
    breakers.ended("echo", "fp32", "none", 1.2)
    assert breakers.probed("echo", 1.2) == frozenset()
    breakers.taken("echo", "fp32", 1.3)
    breakers.ended("echo", "fp32", "success", 1.4)
    assert breakers.of("echo", "fp32", 1.4).state == "closed"
    assert not breakers.report(1.4)


def test_variants_are_judged_apart() -> None:
    breakers = Breakers(TERMS)
    for model, variant in (("echo", "fp32"), ("other", "int8")):
        for _ in range(3):
            breakers.ended(model, variant, "failure", 0.0)
    assert breakers.shut_out("echo", 0.0) == {"fp32"}
    assert breakers.shut_out("other", 0.0) == {"int8"}
    breakers.forget("echo", "fp32")
    assert not breakers.shut_out("echo", 0.0)
    assert breakers.shut_out("other", 0.0)


def test_retries_come_ever_later() -> None:
    waits = []
    breaker, now_s = _opened(), 0.0
    for _ in range(5):
        waits.append(breaker.until_s - now_s)
        now_s = breaker.until_s + 0.5
        breaker = breaker.at(now_s).after("failure", now_s, TERMS)
    assert all(one < other for one, other in pairwise(waits))
