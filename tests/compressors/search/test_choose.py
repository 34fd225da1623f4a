"""What a search does next, in a made-up world whose best recipe is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.search import choose, facts
from compressors.search.choose import Evaluate, Measure
from compressors.search.frontier import hypervolume
from compressors.search.record import Evaluated, Finding, Measured, Record, Rejected
from compressors.search.space import FAMILIES, REFERENCE, Candidate, Shape
from tests.compressors.search.worlds import World, limits, search

_worlds = st.builds(
    World,
    st.floats(0.001, 0.5),
    st.sets(st.sampled_from(["prune-channels", "low-rank", "student"])).map(tuple),
    st.floats(0.001, 0.2),
    st.sets(st.sampled_from(["prune-channels", "student"])).map(tuple),
)


def test_nothing_is_trained_before_it_and_the_middle_of_every_family_is_measured() -> None:
    record, _ = search(World(), limits())
    seen: set[Shape] = set()
    for finding in record.findings:
        if isinstance(finding, Measured):
            seen.add(finding.shape)
        elif isinstance(finding, Evaluated) and not finding.engine:
            assert seen >= {Shape("prune-channels", 0.5), Shape("low-rank", 0.67), Shape("student")}
            assert finding.candidate.shape in seen


@given(_worlds, st.floats(0.001, 0.05))
@settings(max_examples=60)
def test_what_is_found_keeps_the_drop_and_is_beaten_by_nothing_tried(
    world: World, max_drop: float
) -> None:
    how = limits(max_drop)
    record, _ = search(world, how)
    found = facts.frontier(record, how)
    assert any(e.candidate.shape == REFERENCE for e in found)
    for e in found:
        assert e.drop <= max_drop
        for other in record.evaluated():
            if other.engine and other.drop <= e.drop:
                assert other.objective >= e.objective - 0.005 - 1e-12


@given(_worlds, st.integers(0, 60))
@settings(max_examples=40)
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(world: World, cut: int) -> None:
    whole, _ = search(world, limits())
    half = Record(whole.findings[:cut])
    resumed, _ = search(world, limits(), half)
    assert resumed == whole


@given(_worlds, st.floats(1, 2000))
@settings(max_examples=40)
def test_the_budget_is_kept_but_for_the_first_of_a_kind(world: World, budget: float) -> None:
    record, _ = search(world, limits(budget_s=budget))
    # The reference is always run, and until something was trained nobody knows how long that
    # takes: one epoch here, 20 s.
    assert record.seconds + choose.build_seconds(record, limits()) <= budget + 40


def test_a_short_budget_ends_with_what_it_has_and_says_so() -> None:
    record, end = search(World(), limits(budget_s=60))
    assert "60 s" in end.reason
    assert facts.frontier(record, limits(budget_s=60))


def test_the_strongest_that_keeps_the_drop_is_approached() -> None:
    how = limits(0.01, 10**6)
    record, _ = search(World(hardness=0.04), how)
    strengths = [
        e.candidate.shape.strength
        for e in facts.frontier(record, how)
        if e.candidate.shape.family == "prune-channels"
    ]
    # 0.04 s^3 (1 + 4 / 8) = 0.009 for int8 at s = 0.53.
    assert max(strengths) == pytest.approx(0.53, abs=0.07)


def test_every_rejection_has_a_reason_that_names_the_better_one() -> None:
    how = limits(0.003)
    record, _ = search(World(hardness=0.4, absent=("low-rank",)), how)
    told = dict(facts.rejections(record, how))
    assert told["low-rank"] == "nothing to act on"
    assert "prune-channels 0.5, which keeps more, lost" in told["prune-channels 0.75"]
    kept = {e.candidate.name for e in facts.frontier(record, how)}
    tried = {e.candidate.name for e in record.evaluated() if e.engine}
    assert tried - kept <= set(told)


def test_a_shape_that_is_no_faster_is_never_trained() -> None:
    class Odd(World):
        def objective(self, shape: Shape, arithmetic: str) -> float:
            if shape.family == "low-rank":
                return 2 * super().objective(REFERENCE, arithmetic)
            return super().objective(shape, arithmetic)

    record, _ = search(Odd(), limits())
    assert not any(e.candidate.shape.family == "low-rank" for e in record.evaluated())
    assert "the reference" in dict(facts.rejections(record, limits()))["low-rank 0.5"]


@pytest.mark.parametrize("hardness", [0.02, 0.04, 0.1, 0.3])
def test_it_beats_random_search_at_the_same_number_of_trials(hardness: float) -> None:
    how, world = limits(0.01, 10**6), World(hardness=hardness)
    record, _ = search(world, how)
    ours = _volume(facts.frontier(record, how))
    trials = sum(1 for e in record.evaluated())
    volumes = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        drawn = []
        for _ in range(trials):
            family = str(random.choice(how.families))
            strength = float(random.uniform(0.05, 0.95)) if FAMILIES[family].strengths else 0.0
            arithmetic = str(random.choice(["fp32", *how.arithmetics]))
            shape = Shape(family, strength)
            found = world.find(Evaluate(Candidate(shape, how.rungs[-1], arithmetic), True))
            assert isinstance(found, Evaluated)
            drawn.append(found)
        volumes.append(_volume([e for e in drawn if e.drop <= 0.01]))
    assert ours > np.mean(volumes)
    assert sum(ours > volume for volume in volumes) >= 15


def _volume(found: list[Evaluated]) -> float:
    return hypervolume([e.point for e in found], 1.02, 0.0101)


def test_names_are_names_of_variants() -> None:
    assert Candidate(REFERENCE, 0, "fp32").name == "fp32"
    assert Candidate(REFERENCE, 0, "int8").name == "int8"
    assert Candidate(Shape("prune-channels", 0.5), 8, "fp32").name == "prune-channels-0.5"
    assert Candidate(Shape("student"), 8, "int8").name == "student-int8"


def test_the_first_thing_is_the_reference() -> None:
    assert choose.next_action(Record(), limits()) == Evaluate(
        Candidate(REFERENCE, 0, "fp32"), engine=True
    )
    record, _ = search(World(), limits(budget_s=200))
    assert any(isinstance(choose.next_action(Record(record.findings[:n]), limits()), Measure)
               for n in range(len(record.findings)))  # fmt: skip


def test_what_cannot_be_trained_is_tried_once_and_told() -> None:
    record, _ = search(World(failing=("prune-channels",)), limits())
    tried = [f.what for f in record.findings if getattr(f, "reason", "") == "the loss became nan"]
    assert tried and len(tried) == len(set(tried))
    told = dict(facts.rejections(record, limits()))
    assert "the loss became nan" in told.values()


def test_what_loses_far_more_untrained_and_costs_no_less_is_never_trained() -> None:
    class Fragile(World):
        def find(self, action: Evaluate | Measure) -> Finding:
            found = super().find(action)
            if isinstance(found, Measured) and found.shape.family == "low-rank":
                return replace(found, drop=min(0.95, found.shape.strength + 0.2))
            if isinstance(found, Measured) and found.shape.family == "prune-channels":
                return replace(found, objective=found.objective / 4, drop=0.1)
            return found

    record, _ = search(Fragile(), limits())
    assert not any(e.candidate.shape.family == "low-rank" for e in record.evaluated())
    told = dict(facts.rejections(record, limits()))["low-rank 0.67"]
    assert told == (
        "costs no less than prune-channels 0.5 and loses 87 points untrained, that one 10"
    )


def test_losing_much_untrained_alone_rules_nothing_out() -> None:
    class Terrible(World):
        def find(self, action: Evaluate | Measure) -> Finding:
            found = super().find(action)
            return replace(found, drop=0.9) if isinstance(found, Measured) else found

    record, _ = search(Terrible(), limits())
    assert any(e.candidate.shape.family == "prune-channels" for e in record.evaluated())


def test_two_strengths_that_make_the_same_network_are_one() -> None:
    class Coarse(World):
        def find(self, action: Evaluate | Measure) -> Finding:
            found = super().find(action)
            return replace(found, parameters=7) if isinstance(found, Measured) else found

    record, _ = search(Coarse(), limits())
    trained = {e.candidate.shape for e in record.evaluated() if not e.engine}
    strengths = [s.strength for s in trained if s.family == "prune-channels"]
    assert len(strengths) == 1
    told = dict(facts.rejections(record, limits()))
    assert "the same network as prune-channels 0.5" in told["prune-channels 0.75"]


def test_an_arithmetic_that_does_not_run_here_is_told_and_left_alone() -> None:
    class Without(World):
        def find(self, action: Evaluate | Measure) -> Finding:
            if isinstance(action, Evaluate) and action.candidate.arithmetic == "bf16":
                assert action.candidate.shape == REFERENCE
                return Rejected("bf16", "this CPU has none")
            return super().find(action)

    record, _ = search(Without(), limits())
    assert dict(facts.rejections(record, limits()))["bf16"] == "this CPU has none"


def test_a_network_that_every_family_refuses_keeps_its_arithmetics() -> None:
    families = ("prune-channels", "low-rank", "student")
    record, end = search(World(absent=families), limits())
    assert end.reason == "every recipe worth trying was tried"
    assert {e.candidate.name for e in facts.frontier(record, limits())} == {"bf16", "int8"}
    told = dict(facts.rejections(record, limits()))
    assert {told[family] for family in families} == {"nothing to act on"}  # one line a family


def test_no_drop_at_all_may_be_allowed() -> None:
    record, _ = search(World(), limits(max_drop=0.0))
    names = {e.candidate.name for e in facts.frontier(record, limits(max_drop=0.0))}
    assert names == {"bf16"}  # as good as the reference, and faster
