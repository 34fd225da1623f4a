"""Residency: what a memory limit leaves loaded, and the laws by which that changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.residency import FACTOR, Candidate, DoesNotFit, Key, Plan, residency

NOW_S = 1000.0
LEAST_S = 30.0


def candidate(
    name: str, size: int, demand: float = 0.0, *, rank: int = 0, loaded_s: float | None = None
) -> Candidate:
    model, _, variant = name.partition("/")
    return Candidate(model, variant, size, demand, rank, loaded_s)


def after(candidates: Iterable[Candidate], plan: Plan, now_s: float) -> list[Candidate]:
    """The candidates when `plan` has been carried out at `now_s`."""
    since = dict.fromkeys(plan.load, now_s) | dict.fromkeys(plan.free)
    return [
        replace(one, loaded_s=since[one.key]) if one.key in since else one for one in candidates
    ]


def loaded(candidates: Iterable[Candidate]) -> set[Key]:
    return {one.key for one in candidates if one.loaded_s is not None}


def plan(candidates: Iterable[Candidate], limit: int | None, now_s: float = NOW_S) -> Plan:
    return residency(candidates, limit, now_s, least_s=LEAST_S)


def settle(candidates: list[Candidate], limit: int | None, now_s: float = NOW_S) -> list[Candidate]:
    return after(candidates, plan(candidates, limit, now_s), now_s)


# The start: nothing is loaded, and nothing is known of the demand.


def test_without_demand_the_first_in_rank_are_loaded_and_then_what_fits() -> None:
    mine = [
        candidate("a/fp32", 8),
        candidate("a/int8", 3, rank=1),
        candidate("a/small", 1, rank=2),
        candidate("b/fp32", 6),
        candidate("b/small", 2, rank=1),
    ]
    # The second of both models would fit, but not together: the smaller one leaves more room.
    assert loaded(settle(mine, 16)) == {("a", "fp32"), ("b", "fp32"), ("b", "small")}
    # The best of one model leaves the other its smallest, never nothing.
    assert loaded(settle(mine, 10)) == {("a", "fp32"), ("b", "small")}
    assert loaded(settle(mine, 3)) == {("a", "small"), ("b", "small")}
    assert loaded(settle(mine, None)) == {one.key for one in mine}


def test_a_limit_that_holds_no_variant_of_every_model_is_refused_with_what_would() -> None:
    mine = [candidate("a/fp32", 8), candidate("a/small", 2), candidate("b/fp32", 6)]
    with pytest.raises(DoesNotFit, match="takes 8 bytes at least, the limit is 7") as refused:
        plan(mine, 7)
    assert refused.value.least_bytes == 8
    assert loaded(settle(mine, 8)) == {("a", "small"), ("b", "fp32")}


# Swaps.


def test_what_is_loaded_gives_way_to_what_is_wanted_half_as_much_again() -> None:
    mine = [
        candidate("a/keeps", 1, 100, loaded_s=0),
        candidate("a/old", 4, 10, loaded_s=0),
        candidate("a/new", 4, 15),
    ]
    assert plan(mine, 5) == Plan()
    mine[-1] = replace(mine[-1], demand=15.1)
    assert plan(mine, 5) == Plan(load=(("a", "new"),), free=(("a", "old"),))


def test_what_was_loaded_just_now_stays() -> None:
    mine = [candidate("a/old", 4, 1, loaded_s=NOW_S - LEAST_S), candidate("a/new", 4, 1000)]
    assert plan(mine, 4) == Plan()
    assert plan(mine, 4, NOW_S + 1) == Plan(load=(("a", "new"),), free=(("a", "old"),))


def test_what_stood_idle_gives_way_to_the_first_request() -> None:
    mine = [
        candidate("a/fp32", 8, 0.0, loaded_s=0),
        candidate("a/int8", 3, 5.0, rank=1, loaded_s=0),
        candidate("a/small", 1, 0.01, rank=2),
    ]
    assert plan(mine, 11) == Plan(load=(("a", "small"),), free=(("a", "fp32"),))


def test_no_more_goes_than_must() -> None:
    mine = [
        candidate("a/large", 6, 30),
        candidate("a/tiny", 1, 0.1, loaded_s=0),
        candidate("a/some", 3, 6, loaded_s=0),
        candidate("a/more", 6, 15, loaded_s=0),
    ]
    # The two least wanted for each byte are not enough; with the third one, neither is needed.
    assert plan(mine, 10) == Plan(load=(("a", "large"),), free=(("a", "more"),))
    mine = [
        candidate("a/large", 6, 1.5 * 13 + 0.1),
        candidate("a/tiny", 1, 0.1, loaded_s=0),
        candidate("a/some", 3, 6, loaded_s=0),
        candidate("a/more", 3, 7, loaded_s=0),
    ]
    # Nor does it have to outweigh what stays.
    assert plan(mine, 7) == Plan(load=(("a", "large"),), free=(("a", "more"), ("a", "some")))


def test_several_small_ones_take_the_place_of_a_large_one_together() -> None:
    mine = [
        candidate("a/large", 8, 10, loaded_s=0),
        candidate("a/small", 4, 4.9, loaded_s=0),
        candidate("a/one", 4, 9.5),
        candidate("a/two", 4, 9.5),
    ]
    # Either of them alone would take the place of the small one, and the other find none.
    assert plan(mine, 12) == Plan(load=(("a", "one"), ("a", "two")), free=(("a", "large"),))


def test_a_model_that_nobody_asks_for_keeps_its_last_variant() -> None:
    mine = [candidate("idle/fp32", 4, 0, loaded_s=0), candidate("busy/fp32", 4, 9, loaded_s=0)]
    assert plan([*mine, candidate("busy/int8", 4, 1000)], 8) == Plan(
        load=(("busy", "int8"),), free=(("busy", "fp32"),)
    )


def test_among_equals_a_models_last_variant_goes_last() -> None:
    """Its successor could not be loaded beside it."""
    mine = [
        candidate("busy/small", 2, rank=9, loaded_s=0),
        candidate("busy/fp32", 2, 5),
        candidate("idle/fp32", 2, loaded_s=0),
        candidate("idle/small", 2, rank=1, loaded_s=0),
    ]
    assert plan(mine, 6) == Plan(load=(("busy", "fp32"),), free=(("idle", "small"),))


def test_a_model_whose_only_variant_failed_gets_another_at_once() -> None:
    """However young, and however wanted, what has to make room for it."""
    mine = [
        candidate("a/fp32", 4, 100, loaded_s=NOW_S),
        candidate("a/int8", 2, 50, loaded_s=NOW_S),
        candidate("b/small", 1, 0),
    ]
    assert plan(mine, 6) == Plan(load=(("b", "small"),), free=(("a", "fp32"),))


# The laws.

sizes = st.integers(1, 20)
demands = st.just(0.0) | st.floats(0.001, 1000.0)


@st.composite
def fleets(draw: st.DrawFn, *, size: st.SearchStrategy[int] = sizes) -> list[Candidate]:
    """Variants of up to three models, of which some may be loaded already."""
    count = draw(st.integers(1, 8))
    return [
        Candidate(
            model=draw(st.sampled_from("abc")),
            variant=f"v{number}",
            bytes=draw(size),
            demand=draw(demands),
            rank=draw(st.integers(0, 3)),
            loaded_s=draw(st.none() | st.floats(0, NOW_S)),
        )
        for number in range(count)
    ]


def least(candidates: Iterable[Candidate]) -> int:
    smallest: dict[str, int] = {}
    for one in candidates:
        smallest[one.model] = min(one.bytes, smallest.get(one.model, one.bytes))
    return sum(smallest.values())


@st.composite
def limited(
    draw: st.DrawFn, *, size: st.SearchStrategy[int] = sizes
) -> tuple[list[Candidate], int]:
    """A fleet and a limit that holds one variant of every model."""
    mine = draw(fleets(size=size))
    return mine, least(mine) + draw(st.integers(0, 60))


def total(candidates: Iterable[Candidate]) -> int:
    return sum(one.bytes for one in candidates if one.loaded_s is not None)


def met(candidates: Iterable[Candidate], true: Mapping[Key, float] | None = None) -> float:
    """The demand that what is loaded meets."""
    return math.fsum(
        one.demand if true is None else true[one.key]
        for one in candidates
        if one.loaded_s is not None
    )


@given(limited())
def test_never_over_the_limit_and_every_model_has_one(case: tuple[list[Candidate], int]) -> None:
    mine, limit = case
    then = settle(mine, limit)
    assert total(then) <= limit
    assert {model for model, _ in loaded(then)} == {one.model for one in mine}


@given(fleets())
def test_too_small_a_limit_is_refused_exactly_then(mine: list[Candidate]) -> None:
    with pytest.raises(DoesNotFit) as refused:
        plan(mine, least(mine) - 1)
    assert refused.value.least_bytes == least(mine)
    settle(mine, least(mine))


@given(limited())
def test_a_plan_carried_out_leaves_nothing_to_plan(case: tuple[list[Candidate], int]) -> None:
    mine, limit = case
    for least_s in (0.0, LEAST_S):
        then = after(mine, residency(mine, limit, NOW_S, least_s=least_s), NOW_S)
        assert residency(then, limit, NOW_S, least_s=least_s) == Plan()


@given(limited(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(case: tuple[list[Candidate], int], random: object) -> None:
    mine, limit = case
    shuffled = list(mine)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(shuffled, limit) == plan(mine, limit)


@given(fleets())
def test_without_a_limit_everything_is_loaded(mine: list[Candidate]) -> None:
    assert loaded(settle(mine, None)) == {one.key for one in mine}
    assert settle(mine, sum(one.bytes for one in mine)) == settle(mine, None)


@given(limited(), st.integers(0, 60))
def test_a_higher_limit_meets_no_less_and_frees_only_for_more(
    case: tuple[list[Candidate], int], more: int
) -> None:
    mine, limit = case
    then = settle(mine, limit)
    later_s = NOW_S + 2 * LEAST_S
    change = plan(then, limit + more, later_s)
    by_key = {one.key: one.demand for one in mine}
    gained, lost = (math.fsum(by_key[key] for key in part) for part in change)
    if change.free:
        assert gained > FACTOR * lost
    assert met(after(then, change, later_s)) >= met(then) - 1e-9


@given(limited(size=st.just(5)), st.integers(0, 60))
def test_among_variants_of_one_size_a_higher_limit_frees_nothing(
    case: tuple[list[Candidate], int], more: int
) -> None:
    mine, limit = case
    at_s = NOW_S
    # Until nothing changes any more, as at the end of a long steady demand.
    while (change := plan(mine, limit, at_s)) != Plan():
        mine = after(mine, change, at_s)
        at_s += 2 * LEAST_S
    assert plan(mine, limit + more, at_s).free == ()


@given(limited())
def test_what_is_freed_was_settled_and_is_outweighed(case: tuple[list[Candidate], int]) -> None:
    mine, limit = case
    mine = settle(mine, limit)
    wanted = [replace(one, demand=1000.0 - one.demand) for one in mine]  # turned upside down
    for at_s in (NOW_S + LEAST_S, NOW_S + LEAST_S + 1):
        change = plan(wanted, limit, at_s)
        by_key = {one.key: one for one in wanted}
        for key in change.free:
            since_s = by_key[key].loaded_s
            assert since_s is not None and at_s - since_s > LEAST_S
        gained, lost = (math.fsum(by_key[key].demand for key in part) for part in change)
        assert not change.free or gained > FACTOR * lost


@given(limited(), st.data())
def test_noise_of_a_fifth_brings_back_no_set_that_was_left(
    case: tuple[list[Candidate], int], data: st.DataObject
) -> None:
    mine, limit = case
    true = {one.key: one.demand for one in mine}
    mine = settle(mine, limit)
    seen = [loaded(mine)]
    met_so_far = met(mine, true)
    noise = st.floats(0.801, 1.199)
    for tick in range(1, 11):
        at_s = NOW_S + tick * 2 * LEAST_S  # always long enough: the factor alone must do it
        mine = [replace(one, demand=true[one.key] * data.draw(noise)) for one in mine]
        mine = settle(mine, limit, at_s)
        if loaded(mine) != seen[-1]:
            assert loaded(mine) not in seen
            assert met(mine, true) >= met_so_far
            seen.append(loaded(mine))
            met_so_far = met(mine, true)


@given(
    st.lists(st.floats(0.1, 1000.0), min_size=2, max_size=8),
    st.integers(1, 8),
    st.data(),
)
def test_noise_of_a_fifth_changes_nothing_where_the_most_wanted_are_loaded(
    wanted: list[float], slots: int, data: st.DataObject
) -> None:
    ordered = sorted(wanted, reverse=True)
    mine = [
        candidate(f"a/v{place}", 5, demand, loaded_s=0.0 if place < slots else None)
        for place, demand in enumerate(ordered)
    ]
    noise = st.floats(0.801, 1.199)
    noisy = [replace(one, demand=one.demand * data.draw(noise)) for one in mine]
    assert plan(noisy, 5 * min(slots, len(mine))) == Plan()
