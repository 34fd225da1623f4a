"""Laws that every decision keeps, whatever the menu, the moment and the demands."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import constraints as parsing
from router.constraints import Constraints
from router.decision import Decision
from router.estimate import latency_ms, wait_ms
from router.feasible import Option, meets, offered_floor
from router.menu import Menu, Offer
from router.route import Policy, route
from router.snapshot import Snapshot
from tests.router.builders import constraints, menus, snapshots

POLICY = Policy()
STRICT = Policy(accuracy_margin=0.0)

_RELAXATIONS = st.lists(
    st.sampled_from(["latency", "cost", "accuracy"]), unique=True, max_size=3
).map(tuple)


@st.composite
def situations(
    draw: st.DrawFn, *, all_ready: bool = False
) -> tuple[Menu, Snapshot, Constraints, int]:
    menu = draw(menus())
    snapshot = draw(snapshots(menu, all_ready=all_ready))
    return menu, snapshot, draw(constraints()), draw(st.integers(1, 20))


def option(offer: Offer, snapshot: Snapshot, rows: int) -> Option:
    wait = wait_ms(snapshot.lane_free_in_ms, snapshot.backlog_ms)
    return Option(offer, latency_ms(offer, rows, snapshot, wait), offer.cost_usd_per_million(rows))


def chosen(decision: Decision, menu: Menu, snapshot: Snapshot, rows: int) -> Option:
    return option(menu.by_name[decision.variant], snapshot, rows)


@given(situations())
def test_no_constraint_is_broken_unasked(
    situation: tuple[Menu, Snapshot, Constraints, int],
) -> None:
    menu, snapshot, demands, rows = situation
    decision = route(demands, menu, snapshot, POLICY, rows)
    if decision.verdict == "accepted":
        picked = chosen(decision, menu, snapshot, rows)
        assert meets(picked, demands)
        assert decision.variant in snapshot.ready
        assert decision.relaxed == ()
        assert decision.predicted_latency_ms == picked.latency_ms
    else:
        assert not any(
            meets(option(offer, snapshot, rows), demands)
            for offer in menu.offers
            if offer.name in snapshot.ready
        )


@given(situations(), _RELAXATIONS)
def test_only_what_the_caller_listed_gives_way(
    situation: tuple[Menu, Snapshot, Constraints, int], relax: tuple[parsing.Relaxable, ...]
) -> None:
    menu, snapshot, demands, rows = situation
    decision = route(replace(demands, relax=relax), menu, snapshot, POLICY, rows)
    assert set(decision.relaxed) <= set(relax)
    if decision.verdict == "accepted":
        kept = replace(
            demands,
            max_latency_ms=None if "latency" in decision.relaxed else demands.max_latency_ms,
            min_accuracy=None if "accuracy" in decision.relaxed else demands.min_accuracy,
            max_cost_usd_per_million=(
                None if "cost" in decision.relaxed else demands.max_cost_usd_per_million
            ),
        )
        assert meets(chosen(decision, menu, snapshot, rows), kept)
    if decision.relaxed:
        assert route(demands, menu, snapshot, POLICY, rows).verdict != "accepted"


@given(
    situations(), st.sampled_from(["max_latency_ms", "min_accuracy", "max_cost_usd_per_million"])
)
def test_loosening_never_worsens_the_objective(
    situation: tuple[Menu, Snapshot, Constraints, int], loosened: str
) -> None:
    menu, snapshot, demands, rows = situation
    tight = route(demands, menu, snapshot, STRICT, rows)
    loose = route(replace(demands, **{loosened: None}), menu, snapshot, STRICT, rows)
    if tight.verdict != "accepted":
        return
    assert loose.verdict == "accepted"
    before, after = (chosen(d, menu, snapshot, rows) for d in (tight, loose))
    if demands.optimize == "cost":
        assert after.cost_usd_per_million <= before.cost_usd_per_million
    elif demands.optimize == "latency":
        assert after.latency_ms <= before.latency_ms
    else:
        assert after.offer.accuracy >= before.offer.accuracy


@given(situations())
def test_equals_by_evidence_are_within_the_margin_of_the_best(
    situation: tuple[Menu, Snapshot, Constraints, int],
) -> None:
    menu, snapshot, demands, rows = situation
    demands = replace(demands, optimize="accuracy")
    decision = route(demands, menu, snapshot, POLICY, rows)
    if decision.verdict == "accepted":
        best = max(menu.by_name[name].accuracy for name in decision.allowed)
        assert decision.accuracy >= best - POLICY.accuracy_margin - 1e-12


@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_variants_does_not_matter(
    situation: tuple[Menu, Snapshot, Constraints, int], random: st.DataObject
) -> None:
    menu, snapshot, demands, rows = situation
    shuffled = list(menu.offers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one = route(demands, menu, snapshot, POLICY, rows)
    other = route(demands, replace(menu, offers=tuple(shuffled)), snapshot, POLICY, rows)
    assert (one.verdict, one.variant, one.nearest) == (other.verdict, other.variant, other.nearest)
    assert set(one.refused) == set(other.refused)


@given(situations())
def test_every_variant_is_allowed_or_refused_with_a_reason(
    situation: tuple[Menu, Snapshot, Constraints, int],
) -> None:
    menu, snapshot, demands, rows = situation
    decision = route(demands, menu, snapshot, POLICY, rows)
    refused = {refusal.variant for refusal in decision.refused}
    assert refused | set(decision.allowed) == set(menu.by_name)
    assert not refused & set(decision.allowed)
    assert all(str(refusal) for refusal in decision.refused)
    assert decision.why


@settings(max_examples=400)
@given(situations())
def test_every_suggested_value_is_accepted_when_resubmitted(
    situation: tuple[Menu, Snapshot, Constraints, int],
) -> None:
    menu, snapshot, demands, rows = situation
    decision = route(demands, menu, snapshot, POLICY, rows)
    if decision.verdict == "accepted" or not snapshot.ready:
        return
    assert decision.nearest.alone or decision.nearest.together
    for name, value in decision.nearest.alone:
        again = replace(demands, **resubmitted(name, value))
        assert route(again, menu, snapshot, POLICY, rows).verdict == "accepted"
    if decision.nearest.together:
        changed: dict[str, object] = {}
        for name, value in decision.nearest.together:
            changed |= resubmitted(name, value)
        again = replace(demands, **changed)  # type: ignore[arg-type]
        assert route(again, menu, snapshot, POLICY, rows).verdict == "accepted"


@given(situations(all_ready=True))
def test_a_suggested_value_is_the_nearest(
    situation: tuple[Menu, Snapshot, Constraints, int],
) -> None:
    """No option that meets all the other constraints comes nearer, rounding aside."""
    menu, snapshot, demands, rows = situation
    decision = route(demands, menu, snapshot, POLICY, rows)
    for name, value in decision.nearest.alone:
        others = replace(demands, **{name: None})
        fitting = [
            candidate
            for offer in menu.offers
            if meets(candidate := option(offer, snapshot, rows), others)
        ]
        if name == "min_accuracy":
            assert demands.min_accuracy is not None
            best = max(offered_floor(o.offer, demands.min_accuracy).value for o in fitting)
            assert best - 0.00021 <= parsing.floor(name, value).value <= best
        elif name == "max_latency_ms":
            best = min(o.latency_ms for o in fitting)
            assert best <= float(value) <= best * 1.0011
        else:
            best = min(o.cost_usd_per_million for o in fitting)
            assert best <= float(value) <= max(best * 1.0011, 1e-12)


@given(situations(all_ready=True), st.floats(0.1, 10.0))
def test_a_faster_clock_changes_nothing(
    situation: tuple[Menu, Snapshot, Constraints, int], factor: float
) -> None:
    """Scaling every time and every time limit alike leaves the choice as it was."""
    menu, snapshot, demands, rows = situation
    for limit, used in (
        (demands.max_latency_ms, lambda o: o.latency_ms),
        (demands.max_cost_usd_per_million, lambda o: o.cost_usd_per_million),
    ):
        figures = [used(option(offer, snapshot, rows)) for offer in menu.offers]
        if limit is not None and any(math.isclose(f, limit, abs_tol=1e-9) for f in figures):
            return  # rounding decides
    scaled_menu = scale(menu, factor)
    scaled = route(
        replace(
            demands,
            max_latency_ms=demands.max_latency_ms and demands.max_latency_ms * factor,
        ),
        scaled_menu,
        replace(
            snapshot,
            lane_free_in_ms=tuple(ms * factor for ms in snapshot.lane_free_in_ms),
            backlog_ms=snapshot.backlog_ms * factor,
            overhead_ms=snapshot.overhead_ms * factor,
        ),
        POLICY,
        rows,
    )
    assert scaled.verdict == route(demands, menu, snapshot, POLICY, rows).verdict


def scale(menu: Menu, factor: float) -> Menu:
    """The same menu on a machine `factor` times slower and as much cheaper by the hour."""
    offers = tuple(
        replace(
            offer,
            promised_ms=tuple(ms * factor for ms in offer.promised_ms),
            typical_ms=tuple(ms * factor for ms in offer.typical_ms),
            usd_per_million_lane_ms=offer.usd_per_million_lane_ms / factor,
        )
        for offer in menu.offers
    )
    return replace(menu, offers=offers, by_name={offer.name: offer for offer in offers})


def resubmitted(name: str, value: str) -> dict[str, object]:
    """The constraint as the parser reads it when a caller sends the suggested text back."""
    header = parsing.HEADER_PREFIX + name.replace("_", "-")
    if name != "min_accuracy" and float(value) == 0:
        return {name: 0.0}
    return {name: getattr(parsing.parse(((header, value),)), name)}


@pytest.mark.parametrize("objective", ["accuracy", "cost", "latency"])
def test_the_same_moment_gives_the_same_decision(objective: str) -> None:
    @given(situations())
    @settings(max_examples=30)
    def check(situation: tuple[Menu, Snapshot, Constraints, int]) -> None:
        menu, snapshot, demands, rows = situation
        demands = replace(demands, optimize=objective)  # type: ignore[arg-type]
        first = route(demands, menu, snapshot, POLICY, rows)
        assert first == route(demands, menu, snapshot, POLICY, rows)

    check()
