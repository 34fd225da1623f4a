"""Each published policy that assigns by a simple rule does what it is known for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.chance import chance
from router.choices import in_order
from router.menu import Menu, Offer
from router.pace import Pace
from router.policies import least_latency, model_switching
from router.simulate import mix
from tests.laws import examples
from tests.router.policy_rig import (
    DUE,
    LANES,
    MENU,
    NAMES,
    VARIANTS,
    answered_by,
    assigned,
    came,
    choices_of,
    scene,
    simulated,
)


@pytest.mark.parametrize(
    ("name", "variant"),
    [("static_most_accurate", "fp32"), ("static_fastest", "tiny"), ("static:pruned", "pruned")],
)
def test_a_static_policy_never_adapts(name: str, variant: str) -> None:
    assert set(answered_by(name, load=0.1)) == {variant}
    assert set(answered_by(name, load=2.0)) == {variant}


def test_statics_keep_to_the_choices() -> None:
    middle = choices_of("bf16", "int8", "pruned")
    assert assigned("static_most_accurate", middle) == "bf16"
    assert assigned("static_fastest", middle) == "pruned"
    assert assigned("static:tiny", middle) is None


def test_chance_is_uniform_and_unrelated() -> None:
    drawn = np.array([chance(ticket) for ticket in range(20_000)])
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.025


def test_random_choice_is_uniform() -> None:
    three = choices_of("fp32", "int8", "tiny")
    counts = Counter(assigned("random_choice", three, ticket=ticket) for ticket in range(6000))
    assert set(counts) == {"fp32", "int8", "tiny"}
    assert all(abs(count - 2000) < 150 for count in counts.values())


def test_round_robin_takes_turns() -> None:
    turns = [assigned("round_robin", ticket=ticket) for ticket in range(12)]
    assert turns == NAMES * 2


def test_least_latency_takes_the_soonest_and_floods_it() -> None:
    assert assigned("least_latency") == "tiny"
    # Until its queue takes as long as the next one's first batch.
    assert assigned("least_latency", queued_rows={"tiny": 1}) == "tiny"
    assert assigned("least_latency", queued_rows={"tiny": 2}) == "distilled"
    one = least_latency.predicted_ms(MENU.by_name["tiny"], scene(queued_rows={"tiny": 40}))
    full_ms, rest_ms = 1.2 * (0.1 + 0.05 * 32), 1.2 * (0.1 + 0.05 * 9)
    assert one == pytest.approx(full_ms / LANES + rest_ms)


def test_model_switching_is_less_accurate_the_higher_the_load() -> None:
    rates = [0, 500, 1500, 3000, 5000, 12_000, 30_000, 1_000_000]
    chosen = [assigned("model_switching", rate_per_s=rate) for rate in rates]
    assert chosen == ["fp32", "fp32", "bf16", "int8", "pruned", "distilled", "tiny", "tiny"]
    # Everybody is served alike.
    for ticket in range(20):
        assert assigned("model_switching", ticket=ticket, rate_per_s=3000) == "int8"


@examples(30)
@given(variant=st.sampled_from(NAMES), rate=st.floats(0.0, 60.0), limit_ms=st.floats(0.5, 100.0))
def test_a_variant_keeps_up_with_less_and_with_more_time(
    variant: str, rate: float, limit_ms: float
) -> None:
    offer = MENU.by_name[variant]
    if model_switching.keeps_up(offer, scene(), rate, limit_ms):
        assert model_switching.keeps_up(offer, scene(), rate * 0.9, limit_ms)
        assert model_switching.keeps_up(offer, scene(), rate, limit_ms * 1.1)
        # It can serve that much at all.
        assert rate < LANES / 1.2 * 1.2 / (VARIANTS[NAMES.index(variant)][2])


def test_what_the_table_says_of_model_switching_holds_in_a_replay() -> None:
    """At 0.8 of the load that int8 could carry it is int8, and all but 1 % are in time."""
    arrivals_s = came("poisson", 0.8, 5000)
    outcomes, _ = simulated("model_switching", arrivals_s, mix.single(DUE))
    late = outcomes[200:]
    assert Counter(o.variant for o in late).most_common(1)[0][0] == "int8"
    assert sum(outcome.kept for outcome in late) > 0.99 * len(late)


def test_infaas_takes_the_cheapest_that_suffices() -> None:
    assert assigned("infaas") == "tiny"
    assert assigned("infaas", choices_of("fp32", "bf16", "int8")) == "int8"


def test_infaas_passes_over_what_would_be_late_and_at_last_takes_the_fastest() -> None:
    # The cheapest by price may be a slow one that has no room left.
    cheap = Offer("cheap", 0.9, 0.9, 0.9, 1.0, (0.0, 9.0, 18.0), (0.0, 9.0, 18.0), 0.01)
    dear = Offer("dear", 0.9, 0.9, 0.9, 1.0, (0.0, 2.0, 4.0), (0.0, 2.0, 4.0), 1.0)
    both = Menu("m", "cheap", (cheap, dear), {}, {"cheap": cheap, "dear": dear})
    pace = Pace(both, {}, frozenset({"cheap", "dear"}))
    choices = in_order(both, both.offers)
    for queued, within_ms, expected in [
        ({}, 10.0, "cheap"),
        ({"dear": 2}, 10.0, "dear"),
        ({"dear": 30}, 10.0, "dear"),
        ({"cheap": 1}, 20.0, "cheap"),
        ({}, 8.0, "dear"),
    ]:
        got = assigned("infaas", choices, pace=pace, queued_rows=queued, within_ms=within_ms)
        assert got == expected
