"""Choices: what may answer requests that demand alike, best first, and what each is worth."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.choices import eligible, in_order, ranked
from router.constraints import Constraints, Floor, Objective
from router.errors import UnknownVariant
from router.feasible import Option, broken
from router.menu import Menu
from tests.router.builders import constraints, dominated, menu, menus, offer

objectives = st.sampled_from(["accuracy", "cost", "latency"])
margins = st.sampled_from([0.0, 0.005, 0.05])


@given(menus(), constraints(), objectives, margins, st.integers(1, 20))
def test_what_meets_floor_and_cap_may_answer_and_the_rest_has_a_reason(
    plate: Menu, demands: Constraints, objective: Objective, margin: float, rows: int
) -> None:
    kind = eligible(demands, objective, plate, margin, rows)
    timeless = replace(demands, max_latency_ms=None)
    for offered in plate.offers:
        option = Option(offered, 0.0, offered.cost_usd_per_million(rows))
        reasons = {r.constraint for r in kind.refused if r.variant == offered.name}
        assert reasons == set(broken(option, timeless))
        assert (offered in kind.choices.offers) == (not reasons)
    quotes = [o.cost_usd_per_million(rows) for o in kind.choices.offers]
    assert list(kind.quotes) == quotes
    assert kind.choices.model == "m"
    assert kind.choices.thrifty == (objective == "cost")


@given(menus(), constraints(), objectives, margins, st.integers(1, 20))
def test_the_best_comes_first_and_worth_never_rises(
    plate: Menu, demands: Constraints, objective: Objective, margin: float, rows: int
) -> None:
    choices = eligible(demands, objective, plate, margin, rows).choices
    assert all(one >= other for one, other in pairwise(choices.worth))
    assert len(choices.worth) == len(choices.offers)
    costs = [o.cost_usd_per_million(rows) for o in choices.offers]
    if objective == "cost":
        assert costs == sorted(costs)
    if objective == "accuracy" and choices.offers:
        best = max(o.accuracy for o in choices.offers)
        for offered, worth in zip(choices.offers, choices.worth, strict=True):
            # Worth is that of the best of its equals: never less than its own, nor by more.
            assert offered.accuracy <= worth <= offered.accuracy + margin + 1e-12
        assert choices.worth[0] == best


@given(menus(), constraints(), objectives, margins, st.randoms(use_true_random=False))
def test_the_order_of_the_menu_does_not_matter(
    plate: Menu,
    demands: Constraints,
    objective: Objective,
    margin: float,
    random: st.DataObject,
) -> None:
    shuffled = list(plate.offers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    turned = replace(plate, offers=tuple(shuffled))
    one = eligible(demands, objective, plate, margin, 1)
    other = eligible(demands, objective, turned, margin, 1)
    assert (one.choices.offers, one.choices.worth) == (other.choices.offers, other.choices.worth)
    assert set(one.refused) == set(other.refused)


@given(menus(), constraints(), objectives, margins, st.data())
def test_a_dominated_variant_leaves_the_others_as_they_were(
    plate: Menu, demands: Constraints, objective: Objective, margin: float, data: st.DataObject
) -> None:
    worse = dominated(data.draw(st.sampled_from(plate.offers)), "z")
    more = menu(*plate.offers, worse, not_worse=plate.not_worse)
    before = eligible(demands, objective, plate, margin, 1).choices
    after = eligible(demands, objective, more, margin, 1).choices
    assert tuple(o for o in after.offers if o is not worse) == before.offers
    if before.offers:
        assert after.offers[0] is before.offers[0]


def test_those_who_demand_alike_share_one_set() -> None:
    """Also where the deadline or the floor differs and the same may answer: a queue has few."""
    plate = menu(offer("a", 0.9), offer("b", 0.8))
    floor = Constraints(min_accuracy=Floor(0.5), max_latency_ms=3.0)
    one = eligible(floor, "accuracy", plate, 0.005, 1).choices
    for demands in (
        replace(floor, max_latency_ms=None),
        replace(floor, min_accuracy=Floor(0.6)),
        replace(floor, max_cost_usd_per_million=100.0),
        Constraints(priority="low", relax=("latency",)),
    ):
        assert eligible(demands, "accuracy", plate, 0.005, 1).choices is one
    assert eligible(floor, "latency", plate, 0.005, 1).choices is not one


def test_a_pin_leaves_one() -> None:
    plate = menu(offer("a", 0.9), offer("b", 0.8))
    kind = eligible(Constraints(variant="b"), "accuracy", plate, 0.005, 1)
    assert [o.name for o in kind.choices.offers] == ["b"]
    assert [(r.variant, r.constraint) for r in kind.refused] == [("a", "variant")]
    reference = eligible(Constraints(variant="reference"), "accuracy", plate, 0.005, 1)
    assert [o.name for o in reference.choices.offers] == ["a"]
    with pytest.raises(UnknownVariant):
        eligible(Constraints(variant="c"), "accuracy", plate, 0.005, 1)


def test_equals_by_evidence_are_worth_the_same_and_the_cheapest_comes_first() -> None:
    big = offer("big", 0.95, first_ms=4.0)
    lean = offer("lean", 0.948, first_ms=1.0)
    small = offer("small", 0.9, first_ms=0.5)
    plate = menu(big, lean, small, not_worse={"big": {"lean": -0.004, "small": -0.06}})
    order, worth = ranked(plate.offers, "accuracy", plate, 0.005, 1)
    assert [o.name for o in order] == ["lean", "big", "small"]
    assert worth == (0.95, 0.95, 0.9)
    order, worth = ranked(plate.offers, "accuracy", plate, 0.0, 1)
    assert [o.name for o in order] == ["big", "lean", "small"]
    assert worth == (0.95, 0.948, 0.9)


def test_in_order_keeps_the_order_given() -> None:
    plate = menu(offer("a", 0.9), offer("b", 0.8), offer("c", 0.7))
    given_order = [plate.by_name[name] for name in ("b", "c", "a")]
    choices = in_order(plate, given_order)
    assert list(choices.offers) == given_order
    assert choices.worth == (0.0, -1.0, -2.0)
    assert in_order(plate, given_order) is choices
