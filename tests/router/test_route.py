"""Worked examples of a decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.constraints import Constraints, Floor
from router.errors import UnknownVariant
from router.route import Policy, route
from router.snapshot import Snapshot
from tests.router.builders import menu, offer, quiet

FP32 = offer("fp32", 0.964, half_width=0.00695, share_low=1.0, first_ms=2.0, row_ms=1.5)
INT8 = offer("int8", 0.962, half_width=0.006, share_low=0.995, first_ms=0.6, row_ms=0.4)
SMALL = offer("small", 0.930, half_width=0.008, share_low=0.955, first_ms=0.2, row_ms=0.1)
PROVEN = {"fp32": {"int8": -0.004, "small": -0.045}, "int8": {"small": -0.04}}
MENU = menu(FP32, INT8, SMALL, not_worse=PROVEN)
QUIET = quiet(MENU)
POLICY = Policy()


def decide(demands: Constraints, snapshot: Snapshot = QUIET, policy: Policy = POLICY) -> str:
    return route(demands, MENU, snapshot, policy).variant


def test_a_proven_equal_that_is_cheaper_takes_over_from_the_most_accurate() -> None:
    decision = route(Constraints(), MENU, QUIET, POLICY)
    assert (decision.variant, decision.reason) == ("int8", "cheapest-equal")
    assert "fp32" in decision.why


def test_without_proof_the_most_accurate_serves() -> None:
    """The same figures from a small test set: a wide paired interval proves nothing."""
    unproven = replace(MENU, not_worse={"fp32": {"int8": -0.03}})
    decision = route(Constraints(), unproven, QUIET, POLICY)
    assert (decision.variant, decision.reason) == ("fp32", "most-accurate")
    assert route(Constraints(), replace(MENU, not_worse={}), QUIET, POLICY).variant == "fp32"


def test_the_operators_margin_decides_what_is_equal() -> None:
    assert decide(Constraints(), policy=Policy(accuracy_margin=0.001)) == "fp32"
    assert decide(Constraints(), policy=Policy(accuracy_margin=0.05)) == "small"


def test_objectives() -> None:
    assert decide(Constraints(optimize="cost")) == "small"
    assert decide(Constraints(optimize="latency")) == "small"
    assert decide(Constraints(), policy=Policy(default=Constraints(optimize="cost"))) == "small"


def test_the_lower_end_of_the_interval_is_held_to_the_floor() -> None:
    # 0.962 is over the floor, its lower end 0.956 is not.
    assert decide(Constraints(optimize="cost", min_accuracy=Floor(0.957))) == "fp32"
    assert decide(Constraints(optimize="cost", min_accuracy=Floor(0.955))) == "int8"


def test_a_relative_floor_uses_the_paired_difference() -> None:
    assert decide(Constraints(optimize="cost", min_accuracy=Floor(0.99, True))) == "int8"
    assert decide(Constraints(optimize="cost", min_accuracy=Floor(0.999, True))) == "fp32"
    assert decide(Constraints(min_accuracy=Floor(1.0, True))) == "fp32"


def test_a_deadline_and_a_cap_narrow_the_choice() -> None:
    assert decide(Constraints(max_latency_ms=0.3)) == "small"
    assert decide(Constraints(max_cost_usd_per_million=0.6)) == "int8"


def test_a_queue_shifts_to_a_faster_variant() -> None:
    limit = Constraints(max_latency_ms=3.0, min_accuracy=Floor(0.9))
    assert decide(replace(limit, optimize="accuracy"), policy=Policy(accuracy_margin=0)) == "fp32"
    busy = QUIET._replace(wait_ms=1.0, least_wait_ms=1.0)
    assert decide(limit, busy, Policy(accuracy_margin=0)) == "int8"
    slow = QUIET._replace(slowdown={"fp32": 2.0})
    assert decide(limit, slow, Policy(accuracy_margin=0)) == "int8"


def test_nothing_fits_ever() -> None:
    decision = route(Constraints(min_accuracy=Floor(0.99)), MENU, QUIET, POLICY)
    assert decision.verdict == "unsatisfiable"
    assert decision.nearest.alone == (("min_accuracy", "0.9570"),)
    assert {refusal.variant for refusal in decision.refused} == {"fp32", "int8", "small"}
    assert "0.957" in decision.why


def test_each_constraint_that_could_give_way_alone_is_named() -> None:
    demands = Constraints(max_latency_ms=1.0, min_accuracy=Floor(0.957))
    decision = route(demands, MENU, QUIET, POLICY)
    assert dict(decision.nearest.alone) == {"max_latency_ms": "2.5", "min_accuracy": "0.9559"}


def test_what_would_fit_together_when_nothing_does_alone() -> None:
    demands = Constraints(
        max_latency_ms=0.001, min_accuracy=Floor(0.99), max_cost_usd_per_million=0.0
    )
    decision = route(demands, MENU, QUIET, POLICY)
    assert decision.nearest.alone == ()
    assert set(dict(decision.nearest.together)) == {
        "max_latency_ms",
        "min_accuracy",
        "max_cost_usd_per_million",
    }


def test_fits_but_not_under_the_present_load() -> None:
    busy = QUIET._replace(wait_ms=50.0, least_wait_ms=50.0)
    decision = route(Constraints(max_latency_ms=10.0), MENU, busy, POLICY)
    assert decision.verdict == "overloaded"
    assert decision.retry_after_ms == pytest.approx(50 + 0.25 - 10)


def test_where_others_give_way_a_request_is_let_in() -> None:
    """As planned it would be late with any variant, but those ahead may take faster ones: as it
    may have to."""
    demands = Constraints(max_latency_ms=10.0)
    busy = QUIET._replace(wait_ms=50.0, least_wait_ms=9.0)
    decision = route(demands, MENU, busy, POLICY)
    assert (decision.verdict, decision.variant) == ("accepted", "small")
    assert decision.reason == "under-load"
    assert decision.estimate_ms == pytest.approx(9 + 0.25)
    assert [r.variant for r in decision.refused] == ["fp32"]


def test_a_price_of_lane_time_shifts_those_who_optimise_accuracy() -> None:
    """What is lost in accuracy is weighed with the lane time it saves; the others pay nothing."""
    strict = Policy(accuracy_margin=0)
    for price, variant, reason in (
        (0.0, "fp32", "most-accurate"),
        (0.001, "fp32", "most-accurate"),
        (0.002, "int8", "under-load"),
        (0.2, "small", "under-load"),
    ):
        loaded = QUIET._replace(price=price)
        decision = route(Constraints(), MENU, loaded, strict)
        assert (decision.variant, decision.reason) == (variant, reason), price
        assert decision.allowed == (variant, *[n for n in MENU.by_name if n != variant])
        assert decide(Constraints(optimize="cost"), loaded) == "small"
        assert decide(Constraints(variant="fp32"), loaded) == "fp32"


def test_the_price_counts_for_every_row_and_by_the_speed_of_now() -> None:
    strict = Policy(accuracy_margin=0)
    loaded = QUIET._replace(price=0.001)
    assert route(Constraints(), MENU, loaded, strict, rows=2).variant == "int8"
    slowed = loaded._replace(slowdown={"fp32": 2.0})
    assert decide(Constraints(), slowed, strict) == "int8"


def test_what_is_promised_has_a_margin_and_ends_at_the_deadline() -> None:
    wary = QUIET._replace(margin=2.0, tail=1.5, overhead_ms=1.0)
    free = route(Constraints(), MENU, wary, POLICY)
    assert free.estimate_ms == pytest.approx(0.75 * 1.5 + 1)
    assert free.predicted_latency_ms == pytest.approx(2 * free.estimate_ms)
    limited = route(Constraints(max_latency_ms=3.0), MENU, wary, POLICY)
    assert (limited.variant, limited.predicted_latency_ms) == ("int8", 3.0)
    soft = route(Constraints(max_latency_ms=0.5, relax=("latency",)), MENU, wary, POLICY)
    assert soft.predicted_latency_ms == pytest.approx(2 * soft.estimate_ms)


def test_what_may_answer_in_its_place_is_handed_on() -> None:
    """Those that meet the floor and the cap: the deadline is judged when a lane comes free."""
    demands = Constraints(min_accuracy=Floor(0.955), max_latency_ms=1.0)
    decision = route(demands, MENU, QUIET, POLICY)
    assert decision.choices is not None
    assert [o.name for o in decision.choices.offers] == ["int8", "fp32"]
    assert decision.allowed == ("int8",)
    # When latency gave way, nothing else gives way after it.
    late = route(replace(demands, max_latency_ms=0.1, relax=("latency",)), MENU, QUIET, POLICY)
    assert late.choices is not None
    assert [o.name for o in late.choices.offers] == ["int8"]


def test_a_variant_that_is_not_ready_is_not_chosen() -> None:
    partly = QUIET._replace(ready=frozenset({"small"}))
    assert decide(Constraints(), partly) == "small"
    pinned = route(Constraints(variant="fp32"), MENU, partly, POLICY)
    assert pinned.verdict == "not-ready"
    none = QUIET._replace(ready=frozenset())
    assert route(Constraints(), MENU, none, POLICY).verdict == "not-ready"
    needs_more = route(Constraints(min_accuracy=Floor(0.955)), MENU, partly, POLICY)
    assert needs_more.verdict == "not-ready"


def test_pins_and_aliases() -> None:
    assert route(Constraints(variant="small"), MENU, QUIET, POLICY).reason == "pinned"
    assert decide(Constraints(variant="reference")) == "fp32"
    with pytest.raises(UnknownVariant, match=r"int4.*fp32, int8, small, reference"):
        decide(Constraints(variant="int4"))
    # A pin is no excuse for breaking another constraint.
    demands = Constraints(variant="fp32", max_latency_ms=1.0)
    decision = route(demands, MENU, QUIET, POLICY)
    assert decision.verdict == "unsatisfiable"
    assert dict(decision.nearest.alone) == {"max_latency_ms": "2.5"}


def test_relaxing_latency_gives_the_fastest_that_meets_the_rest() -> None:
    demands = Constraints(max_latency_ms=0.5, min_accuracy=Floor(0.955), relax=("latency",))
    decision = route(demands, MENU, QUIET, POLICY)
    assert (decision.variant, decision.relaxed, decision.reason) == (
        "int8",
        ("latency",),
        "relaxed",
    )


def test_relaxing_accuracy_gives_the_most_accurate_that_meets_the_rest() -> None:
    demands = Constraints(max_latency_ms=1.0, min_accuracy=Floor(0.99), relax=("accuracy",))
    assert decide(demands) == "int8"


def test_the_first_named_gives_way_first() -> None:
    demands = Constraints(max_latency_ms=0.5, min_accuracy=Floor(0.955))
    first = route(replace(demands, relax=("latency", "accuracy")), MENU, QUIET, POLICY)
    assert (first.variant, first.relaxed) == ("int8", ("latency",))
    second = route(replace(demands, relax=("accuracy", "latency")), MENU, QUIET, POLICY)
    assert (second.variant, second.relaxed) == ("small", ("accuracy",))


def test_a_decision_as_json_holds_plain_values() -> None:
    accepted = route(Constraints(), MENU, QUIET, POLICY).as_json()
    assert accepted["variant"] == "int8"
    assert accepted["allowed"][0] == "int8"
    demands = Constraints(min_accuracy=Floor(0.9999, True), max_latency_ms=1.0)
    refused = route(demands, MENU, QUIET, POLICY).as_json()
    assert refused["nearest"] == {"max_latency_ms": 2.5, "min_accuracy": "99.49%"}
    assert {r["variant"] for r in refused["refused"]} == {"fp32", "int8", "small"}


def test_a_loaded_gateways_own_cost_is_no_reason_to_say_never() -> None:
    loaded = QUIET._replace(overhead_ms=20.0, least_overhead_ms=0.5)
    assert route(Constraints(max_latency_ms=5.0), MENU, loaded, POLICY).verdict == "overloaded"
    never = route(Constraints(max_latency_ms=0.5), MENU, loaded, POLICY)
    assert never.verdict == "unsatisfiable"
