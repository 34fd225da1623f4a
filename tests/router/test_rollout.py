"""The rollout as a value: one part for each variant, and shares that are kept."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.constraints import Constraints, Floor
from router.errors import NotReady, UnknownVariant
from router.menu import Menu, assemble
from router.rollout import AS_IT_LIES, Rollout, pick
from router.route import Policy, route
from router.snapshot import idle
from tests.router.builders import menu, offer

NAMES = st.sampled_from(["a", "b", "c", "d"])
SHARES = st.sampled_from([0.05, 0.2, 0.25, 0.5])


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    rollout = AS_IT_LIES
    for _ in range(draw(st.integers(0, 8))):
        verb = draw(st.sampled_from(["enable", "disable", "canary", "shadow", "pin", "serve"]))
        try:
            if verb in ("canary", "shadow"):
                rollout = getattr(rollout, verb)(draw(NAMES), draw(SHARES))
            elif verb == "serve":
                rollout = rollout.serve(draw(st.booleans()))
            else:
                rollout = getattr(rollout, verb)(draw(NAMES))
        except ValidationError:
            continue  # refused: what was before holds
    return rollout


@given(rollouts())
def test_each_variant_has_one_part_and_the_file_says_the_same(rollout: Rollout) -> None:
    parts = Counter([*rollout.disabled, *rollout.canaries, *rollout.shadows])
    assert not parts or max(parts.values()) == 1
    assert rollout.pinned not in rollout.absent()
    assert sum(rollout.canaries.values()) <= 1 + 1e-9
    assert Rollout.model_validate_json(rollout.model_dump_json()) == rollout


@given(rollouts(), NAMES)
def test_enabling_undoes_whatever_part_a_variant_has(rollout: Rollout, name: str) -> None:
    assert name not in rollout.enable(name).apart()
    assert rollout.enable(name).enable(name) == rollout.enable(name)


@given(rollouts(), NAMES)
def test_nothing_is_left_of_a_variant_that_is_forgotten(rollout: Rollout, name: str) -> None:
    rollout = rollout.alias("x", "a")
    after = rollout.forget(name)
    assert name not in {*after.apart(), after.pinned, *after.aliases.values()}
    assert rollout.mentions(name) == (after != rollout) and not after.mentions(name)
    assert after.serves == rollout.serves


@given(rollouts(), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50))
def test_only_canaries_are_picked(rollout: Rollout, numbers: list[float]) -> None:
    assert {pick(rollout.canaries, number) for number in numbers} <= {None, *rollout.canaries}


@given(rollouts())
def test_a_canary_is_picked_as_often_as_its_share_says(rollout: Rollout) -> None:
    steps = 10_000
    counts = Counter(pick(rollout.canaries, step / steps) for step in range(steps))
    for name, share in rollout.canaries.items():
        assert counts[name] == pytest.approx(share * steps, abs=2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda: Rollout().pin("a").disable("a"), "a is pinned"),
        (lambda: Rollout().pin("a").shadow("a", 0.5), "a is pinned"),
        (lambda: Rollout().disable("a").pin("a"), "a is pinned"),
        (lambda: Rollout().canary("a", 0.6).canary("b", 0.6), "add up to more than 1"),
        (lambda: Rollout().canary("a", 0.0), "greater than 0"),
        (lambda: Rollout().shadow("a", 1.5), "less than or equal to 1"),
        (lambda: Rollout().alias("reference", "a"), "is fixed"),
        (lambda: Rollout().alias("No Name", "a"), "match pattern"),
        (lambda: Rollout(disabled=("a",), shadows={"a": 0.1}), "a has two parts"),
    ],
)
def test_what_makes_no_sense_is_refused(change: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        change()  # type: ignore[operator]


BEST, NEXT = offer("best", accuracy=0.99), offer("next", accuracy=0.9)


def with_(**more: object) -> Menu:
    return assemble("m", "best", [BEST, NEXT], {}, **more)


def decide(menu: Menu, **demands: object) -> tuple[str, str]:
    ready = frozenset(menu.by_name)
    decision = route(Constraints(**demands), menu, idle(ready), Policy())  # type: ignore[arg-type]
    return decision.verdict, decision.variant


def test_a_canary_answers_only_who_names_it() -> None:
    withheld = with_(withheld=frozenset({"best"}))
    assert decide(with_()) == ("accepted", "best")
    assert decide(withheld) == ("accepted", "next")
    assert decide(withheld, variant="best") == ("accepted", "best")
    # Not even where nothing else meets the constraints, or where they may give way.
    assert decide(withheld, min_accuracy=Floor(0.97))[0] == "unsatisfiable"
    relaxed = decide(withheld, min_accuracy=Floor(0.97), relax=("accuracy",))
    assert relaxed == ("accepted", "next")
    refused = route(Constraints(), withheld, idle(frozenset({"next"})), Policy()).refused
    assert [str(one) for one in refused] == [
        "best: a canary, which gets its share of the requests alone"
    ]


def test_names_are_resolved_and_what_is_off_the_menu_says_why() -> None:
    other = offer("other")
    made = assemble(
        "m", "best", [NEXT, other], {}, aliases={"stable": "next", "other": "next"},
        absent={"best": "disabled by the operator"}, broken={"torn": "card.json is missing"},
    )  # fmt: skip
    assert made.resolve("stable") is NEXT
    assert made.resolve("other") is NEXT  # an alias stays one where a variant of its name comes
    for name in ("best", "reference"):
        with pytest.raises(UnknownVariant, match="m does not serve 'best': disabled by the"):
            made.resolve(name)
    with pytest.raises(NotReady, match=r"m/torn is failed: card.json is missing"):
        made.resolve("torn")
    with pytest.raises(UnknownVariant, match=r"no variant .x.. there are next, other, other, st"):
        made.resolve("x")


def test_what_was_worked_out_for_a_menu_dies_with_it() -> None:
    made = with_()
    decide(made)
    assert made.kinds
    assert not with_().kinds
    assert menu(offer("a", accuracy=0.9)).kinds == {}
