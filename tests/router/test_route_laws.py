"""Laws that every decision keeps, whatever the menu, the moment and the demands."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import constraints as parsing
from router.constraints import Constraints, Floor
from router.decision import Decision
from router.estimate import latency_ms
from router.feasible import Option, meets, offered_floor
from router.menu import Menu, Offer
from router.route import Policy, route
from router.snapshot import Snapshot
from tests.router.builders import (
    NAMES,
    changed,
    constraints,
    dominated,
    menu,
    menus,
    offer,
    scale,
    snapshots,
)

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
    demands, rows = draw(constraints()), draw(st.integers(1, 20))
    if draw(st.booleans()):  # a deadline that one of them only just makes, or only just misses
        offer = draw(st.sampled_from(menu.offers))
        wait = draw(st.sampled_from([snapshot.wait_ms, snapshot.least_wait_ms]))
        limit_ms = latency_ms(offer, rows, snapshot, wait) * draw(st.sampled_from([0.95, 1, 1.05]))
        demands = replace(demands, max_latency_ms=limit_ms)
    return menu, snapshot, demands, rows


def option(
    offer: Offer,
    snapshot: Snapshot,
    rows: int,
    wait: float | None = None,
    limit_ms: float | None = None,
) -> Option:
    wait = snapshot.wait_ms if wait is None else wait
    ms = latency_ms(offer, rows, snapshot, wait, limit_ms)
    return Option(offer, ms, offer.cost_usd_per_million(rows))


def yielding(snapshot: Snapshot) -> Snapshot:
    """The same moment, with those ahead already planned to give way as far as they must."""
    return snapshot._replace(wait_ms=snapshot.least_wait_ms)


def seen_by(demands: Constraints, menu: Menu, snapshot: Snapshot, rows: int) -> Snapshot:
    """The moment by which the request is judged: where nothing fits behind those ahead as they are
    planned to be served, behind them giving way."""
    fits = any(
        meets(option(offer, snapshot, rows, limit_ms=demands.max_latency_ms), demands)
        for offer in menu.offers
        if offer.name in snapshot.ready
    )
    return snapshot if fits else yielding(snapshot)


def chosen(
    decision: Decision,
    menu: Menu,
    snapshot: Snapshot,
    rows: int,
    limit_ms: float | None = None,
) -> Option:
    return option(menu.by_name[decision.variant], snapshot, rows, limit_ms=limit_ms)


@given(situations())
def test_no_constraint_is_broken_unasked(
    situation: tuple[Menu, Snapshot, Constraints, int],
) -> None:
    menu, snapshot, demands, rows = situation
    decision = route(demands, menu, snapshot, POLICY, rows)
    judged = seen_by(demands, menu, snapshot, rows)
    if decision.verdict == "accepted":
        picked = chosen(decision, menu, judged, rows, demands.max_latency_ms)
        assert meets(picked, demands)
        assert decision.variant in snapshot.ready
        assert decision.relaxed == ()
        assert decision.estimate_ms == picked.latency_ms
        limit_ms = demands.max_latency_ms or math.inf
        assert decision.predicted_latency_ms == min(picked.latency_ms * snapshot.margin, limit_ms)
        assert decision.choices is not None
        timeless = replace(demands, max_latency_ms=None)
        assert set(decision.allowed) <= {o.name for o in decision.choices.offers}
        for offer in decision.choices.offers:
            assert meets(option(offer, snapshot, rows), timeless)
        for name in decision.allowed:
            assert meets(
                option(menu.by_name[name], judged, rows, limit_ms=demands.max_latency_ms), demands
            )
    else:
        assert not any(
            meets(option(offer, judged, rows, limit_ms=demands.max_latency_ms), demands)
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
        judged = yielding(snapshot) if decision.relaxed else seen_by(kept, menu, snapshot, rows)
        assert meets(chosen(decision, menu, judged, rows, demands.max_latency_ms), kept)
        # What answers in its place at dispatch keeps the same.
        assert decision.choices is not None
        timeless = replace(kept, max_latency_ms=None)
        for offer in decision.choices.offers:
            assert meets(option(offer, judged, rows), timeless)
    if decision.relaxed:
        assert route(demands, menu, snapshot, POLICY, rows).verdict != "accepted"


@given(
    situations(), st.sampled_from(["max_latency_ms", "min_accuracy", "max_cost_usd_per_million"])
)
def test_loosening_never_worsens_the_objective(
    situation: tuple[Menu, Snapshot, Constraints, int], loosened: str
) -> None:
    """What is made best, under `accuracy`, is worth less the price of the lane time.

    At a price of 0 that is the accuracy itself. A request that fits only where those ahead give way
    gives way itself: it is promised its fastest choice.
    """
    menu, snapshot, demands, rows = situation
    tight = route(demands, menu, snapshot, STRICT, rows)
    loose = route(replace(demands, **{loosened: None}), menu, snapshot, STRICT, rows)
    if tight.verdict != "accepted":
        return
    assert loose.verdict == "accepted"
    before, after = (chosen(d, menu, snapshot, rows) for d in (tight, loose))
    if demands.max_latency_ms is not None and before.latency_ms > demands.max_latency_ms:
        return  # accepted on the hope that those ahead give way: no choice that loosening must keep
    if demands.optimize == "cost":
        assert after.cost_usd_per_million <= before.cost_usd_per_million
    elif demands.optimize == "latency":
        assert after.latency_ms <= before.latency_ms
    else:
        assert gain(after, snapshot, rows) >= gain(before, snapshot, rows)
        if not snapshot.price:
            assert after.offer.accuracy >= before.offer.accuracy


def gain(option: Option, snapshot: Snapshot, rows: int) -> float:
    """Accuracy less the price of the lane time."""
    offer = option.offer
    price = snapshot.price * rows
    return offer.accuracy - price * offer.row_ms * snapshot.slowdown.get(offer.name, 1.0)


@given(
    situations(), st.sampled_from(["max_latency_ms", "min_accuracy", "max_cost_usd_per_million"])
)
def test_loosening_never_loses_a_request(
    situation: tuple[Menu, Snapshot, Constraints, int], loosened: str
) -> None:
    menu, snapshot, demands, rows = situation
    if route(demands, menu, snapshot, POLICY, rows).verdict == "accepted":
        again = route(replace(demands, **{loosened: None}), menu, snapshot, POLICY, rows)
        assert again.verdict == "accepted"


@given(situations())
def test_equals_by_evidence_are_within_the_margin_of_the_best(
    situation: tuple[Menu, Snapshot, Constraints, int],
) -> None:
    menu, snapshot, demands, rows = situation
    demands = replace(demands, optimize="accuracy")
    decision = route(demands, menu, snapshot._replace(price=0.0), POLICY, rows)
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
            if meets(
                candidate := option(
                    offer, yielding(snapshot), rows, limit_ms=demands.max_latency_ms
                ),
                others,
            )
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


@given(situations(), _RELAXATIONS, st.integers(-4, 4))
def test_a_faster_clock_changes_nothing(
    situation: tuple[Menu, Snapshot, Constraints, int],
    relax: tuple[parsing.Relaxable, ...],
    power: int,
) -> None:
    """Scaling every time and every time limit alike, and prices against it, changes no choice.

    By powers of two, so that it changes no rounding either.
    """
    menu, snapshot, demands, rows = situation
    demands = replace(demands, relax=relax)
    factor = 2.0**power
    one = route(demands, menu, snapshot, POLICY, rows)
    other = route(
        replace(demands, max_latency_ms=demands.max_latency_ms and demands.max_latency_ms * factor),
        scale(menu, factor),
        snapshot._replace(
            wait_ms=snapshot.wait_ms * factor,
            least_wait_ms=snapshot.least_wait_ms * factor,
            overhead_ms=snapshot.overhead_ms * factor,
            least_overhead_ms=snapshot.least_overhead_ms * factor,
            price=snapshot.price / factor,
        ),
        POLICY,
        rows,
    )
    assert alike(one, other)
    assert other.estimate_ms == one.estimate_ms * factor
    assert other.retry_after_ms == pytest.approx(one.retry_after_ms * factor)


def alike(one: Decision, other: Decision) -> bool:
    """Whether both decide the same; the figures and sentences may differ."""
    return (one.verdict, one.variant, one.reason, one.allowed, one.relaxed) == (
        other.verdict,
        other.variant,
        other.reason,
        other.allowed,
        other.relaxed,
    )


# Whole steps of an accuracy, of a time and of a price, which floats add without rounding.
STEP = 1 / 1024


@given(st.data(), st.integers(-64, 64), _RELAXATIONS)
def test_a_harder_task_changes_nothing(
    data: st.DataObject, shift: int, relax: tuple[parsing.Relaxable, ...]
) -> None:
    """Shifting every accuracy and the floor alike changes no choice."""
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    listed = [
        offer(
            name,
            data.draw(st.integers(200, 800)) * STEP,
            half_width=data.draw(st.integers(0, 32)) * STEP,
            share_low=0.5,
            first_ms=data.draw(st.integers(1, 64)),
            max_batch=1,
        )
        for name in names
    ]
    plate = menu(*listed)
    by = shift * STEP
    shifted = changed(
        plate,
        lambda o: replace(
            o,
            accuracy=o.accuracy + by,
            accuracy_low=o.accuracy_low + by,
            accuracy_high=o.accuracy_high + by,
        ),
    )
    floor = data.draw(st.none() | st.integers(200, 800))
    snapshot = data.draw(snapshots(plate))._replace(slowdown={})
    snapshot = snapshot._replace(price=data.draw(st.integers(0, 8)) * STEP)
    demands = replace(data.draw(constraints()), relax=relax, min_accuracy=None)

    def demanded(by: float) -> Constraints:
        if floor is None:
            return demands
        return replace(demands, min_accuracy=Floor(floor * STEP + by))

    # The margin, too, is a whole number of steps.
    policy = Policy(accuracy_margin=8 * STEP)
    assert alike(
        route(demanded(0.0), plate, snapshot, policy),
        route(demanded(by), shifted, snapshot, policy),
    )


@given(situations(all_ready=True), _RELAXATIONS, st.data())
def test_a_dominated_variant_changes_nothing(
    situation: tuple[Menu, Snapshot, Constraints, int],
    relax: tuple[parsing.Relaxable, ...],
    data: st.DataObject,
) -> None:
    """Slower, dearer and less accurate than another one that is there: it is never chosen."""
    menu, snapshot, demands, rows = situation
    demands = replace(demands, relax=relax)
    better = data.draw(st.sampled_from(menu.offers))
    worse = dominated(better, data.draw(st.sampled_from(["0", "z"])))
    factor = snapshot.slowdown.get(better.name, 1.0)
    snapshot = snapshot._replace(slowdown={**snapshot.slowdown, worse.name: factor})
    more = with_more(menu, worse)
    one = route(demands, menu, snapshot, POLICY, rows)
    other = route(
        demands, more, snapshot._replace(ready=snapshot.ready | {worse.name}), POLICY, rows
    )
    assert (one.verdict, one.variant, one.relaxed) == (other.verdict, other.variant, other.relaxed)
    assert [name for name in other.allowed if name != worse.name] == list(one.allowed)
    assert one.nearest.alone == other.nearest.alone
    assert one.retry_after_ms == other.retry_after_ms


def with_more(plate: Menu, *offers: Offer) -> Menu:
    return menu(*plate.offers, *offers, not_worse=plate.not_worse, reference=plate.reference)


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
