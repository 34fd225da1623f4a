"""Trials: the same for the same arguments, and never above the bound, whatever the policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import policies
from router.constraints import Constraints, Floor
from router.simulate import score, trial
from router.simulate.mix import TENANTS, Mix, Tenant, parse, single
from router.simulate.score import Score
from router.simulate.service import Noise
from router.simulate.trial import Case, Workload, capacity_per_s, middle
from tests.laws import examples
from tests.router.simulate.workloads import SIX, workload

EVERY = [
    *[name for name in policies.names() if not name.endswith(":")],
    *[f"static:{name}" for name in SIX],
]


def scored(of: Workload, case: Case, policy: str) -> Score:
    outcomes = trial.run(of, case, policy)
    return score.score(outcomes, [of.model_of(t) for t in of.mix.tenants], of.menus)


def test_load_is_counted_by_the_third_of_six() -> None:
    made = workload()
    assert middle(made.menus["model"]).name == "int8"
    # 32 rows in 0.1 + 32 * 0.57 ms.
    assert capacity_per_s(made, 2) == pytest.approx(2 * 32_000 / (0.1 + 32 * 0.57))


def test_load_of_larger_requests_is_less() -> None:
    rows_4 = Mix((Tenant("a", 0.5, Constraints()), Tenant("b", 0.5, Constraints(), rows=3)))
    assert capacity_per_s(workload(mix=rows_4), 1) == pytest.approx(
        capacity_per_s(workload(), 1) / 2
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_middle_of_any_number(count: int) -> None:
    some = dict(list(SIX.items())[:count])
    assert middle(workload(variants=some).menus["model"]).name == list(SIX)[(count - 1) // 2]


@pytest.mark.parametrize("policy", EVERY)
def test_a_trial_follows_from_its_arguments(policy: str) -> None:
    made = workload("gamma:cv=2", noise=Noise("lognormal", 0.1))
    case = Case(capacity_per_s(made, 2), 2, 7)
    first = trial.run(made, case, policy)
    assert first == trial.run(made, case, policy)
    assert len(first) == 300
    other = trial.run(made, case._replace(seed=8), policy)
    assert [outcome.at_s for outcome in other] != [outcome.at_s for outcome in first]


def test_every_policy_is_given_the_same_requests() -> None:
    made = workload(mix=TENANTS)
    case = Case(3000.0, 2, 1)
    requests = {
        tuple((outcome.at_s, outcome.tenant) for outcome in trial.run(made, case, name))
        for name in EVERY
    }
    assert len(requests) == 1


ROWS = parse(
    """
[[tenant]]
name = "large"
share = 1
rows = 3
max_latency_ms = 40
[[tenant]]
name = "patient"
share = 1
[[tenant]]
name = "soft"
share = 2
max_latency_ms = 12
min_accuracy = 0.93
relax = "latency,accuracy"
""",
    "rows",
)
TIGHT = single(Constraints(max_latency_ms=1.0, min_accuracy=Floor(0.9)))
THIRTY = single(Constraints(max_latency_ms=30.0))


@examples(60)
@given(
    arriving=st.sampled_from(["poisson", "gamma:cv=4", "spike:height=8", "diurnal", "map"]),
    load=st.sampled_from([0.2, 0.7, 1.0, 1.6, 3.0, 12.0]),
    lanes=st.integers(1, 3),
    seed=st.integers(1, 1000),
    mix=st.sampled_from([THIRTY, TIGHT, TENANTS, ROWS]),
    noise=st.sampled_from([Noise("none"), Noise("lognormal", 0.1), Noise("lognormal", 0.3)]),
    slow=st.sampled_from([1.0, 2.0, 5.0]),
    policy=st.sampled_from(EVERY),
)
def test_no_policy_is_above_the_bound(
    arriving: str,
    load: float,
    lanes: int,
    seed: int,
    mix: Mix,
    noise: Noise,
    slow: float,
    policy: str,
) -> None:
    made = workload(arriving, mix=mix, noise=noise, slow_from_half=slow)
    case = Case(load * capacity_per_s(made, lanes), lanes, seed)
    found, most = scored(made, case, policy), trial.limit(made, case)
    # Random times are bounded in expectation; one draw of a few hundred requests, which a crowd
    # makes into as few as ten batches, may be luckier.
    luck = 0.0 if noise.kind == "none" else 0.03 if noise.sigma < 0.2 else 0.15
    assert found.effective_accuracy_all <= most.worth + luck + 1e-9
    assert found.attainment <= most.served + luck + 1e-9


def test_the_bound_is_reached_where_there_is_time_for_all() -> None:
    made = workload()
    case = Case(0.02 * capacity_per_s(made, 2), 2, 1)
    assert trial.limit(made, case).worth == pytest.approx(0.935)
    assert scored(made, case, "gearshift").effective_accuracy_all == pytest.approx(0.935)


@pytest.mark.parametrize("slow", [1.0, 3.0])
@pytest.mark.parametrize("arriving", ["poisson", "gamma:cv=4"])
@pytest.mark.parametrize("mix", [THIRTY, TENANTS], ids=["one", "tenants"])
def test_the_bound_is_not_far_above_what_is_reached(arriving: str, slow: float, mix: Mix) -> None:
    made = workload(arriving, requests=3000, slow_from_half=slow, mix=mix)
    case = Case(capacity_per_s(made, 2), 2, 1)
    found, most = scored(made, case, "gearshift"), trial.limit(made, case)
    # What it takes to notice that a machine became slow is much of so short a replay.
    least = most.worth - (0.02 if slow == 1.0 else 0.1)
    assert least < found.effective_accuracy_all <= most.worth


def test_a_machine_that_slows_down_leaves_less_to_reach() -> None:
    made, slowed = workload(requests=2000), workload(requests=2000, slow_from_half=3.0)
    case = Case(capacity_per_s(made, 2), 2, 1)
    assert trial.limit(slowed, case).worth < trial.limit(made, case).worth - 0.001


def test_what_may_give_way_does_not_narrow_the_bound() -> None:
    demands = {"min_accuracy": Floor(0.93), "max_latency_ms": 0.4}
    for relax, names in (((), []), (("accuracy",), ["distilled-int8", "tiny-int8"])):
        made = workload(mix=single(Constraints(**demands, relax=relax)))  # type: ignore[arg-type]
        (tenant,) = made.mix.tenants
        assert [offer.name for offer in trial.allowed(made, tenant)] == names


def test_what_is_not_loaded_never_answers() -> None:
    made = workload()
    loaded = frozenset({("model", "int8"), ("model", "tiny-int8")})
    outcomes = trial.run(made, Case(3000.0, 2, 1), "gearshift", loaded)
    assert {outcome.variant for outcome in outcomes} <= {"int8", "tiny-int8", ""}


def test_a_tenant_that_nothing_can_serve_is_named_with_what_would_fit() -> None:
    made = workload(mix=single(Constraints(min_accuracy=Floor(0.99))))
    assert "would fit: min_accuracy 0.935" in trial.unmet(made)["all"]
    assert trial.unmet(workload(mix=TENANTS)) == {}
