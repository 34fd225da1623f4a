"""How much longer batches take than their cards say: laws, and what noise does to them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.drift import OLDEST_S, WINDOW, Drift, Key

A, B, C, UNSEEN = (("m", name) for name in "abcd")
STEP_S = 0.02


class Clock:
    """Feeds batches at even times."""

    def __init__(self, drift: Drift) -> None:
        self.drift = drift
        self.now_s = 0.0

    def run(self, key: Key, *ratios: float) -> None:
        for ratio in ratios:
            self.now_s += STEP_S
            self.drift.observe(key, 10.0, 10.0 * ratio, self.now_s)

    def factor(self, key: Key) -> float:
        return self.drift.factor(key, self.now_s)


def fed(ratios: Sequence[float], key: Key = A) -> Clock:
    clock = Clock(Drift())
    clock.run(key, *ratios)
    return clock


def noise(rng: random.Random, sigma: float) -> float:
    return rng.lognormvariate(0, sigma) * (5 if rng.random() < 0.01 else 1)


def test_without_batches_the_card_is_believed() -> None:
    assert Drift().factor(A, 5.0) == 1.0
    assert Drift().factors("m", ["a", "b"], 5.0) == {"a": 1.0, "b": 1.0}


def test_two_batches_convince_nobody_and_three_do() -> None:
    assert fed([5.0, 5.0]).factor(A) == 1.0
    assert fed([1.3, 1.3, 1.3]).factor(A) == pytest.approx(1.3)


@pytest.mark.parametrize("factor", [2.0, 0.5, 8.0])
def test_a_change_of_speed_is_followed_within_four_batches(factor: float) -> None:
    clock = fed([1.0] * 40)
    clock.run(A, *[factor] * 4)
    assert clock.factor(A) == pytest.approx(factor)
    clock.run(A, *[1.0] * 4)
    assert clock.factor(A) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize(("sigma", "batches"), [(0.1, 4), (0.2, 6), (0.3, 10)])
def test_it_is_followed_through_noise(factor: float, sigma: float, batches: int) -> None:
    late = 0
    for seed in range(100):
        rng = random.Random(seed)
        clock = fed([noise(rng, sigma) for _ in range(60)])
        clock.run(A, *(factor * noise(rng, sigma) for _ in range(batches)))
        late += not factor / 1.4 < clock.factor(A) < factor * 1.4
    assert late <= 15


@pytest.mark.parametrize(("sigma", "per_thousand"), [(0.1, 0.1), (0.2, 1.5), (0.3, 2.5)])
def test_steady_noise_is_seldom_taken_for_a_change(sigma: float, per_thousand: float) -> None:
    rng = random.Random(1)
    clock = Clock(Drift())
    factors = []
    for _ in range(20_000):
        clock.run(rng.choice([A, B, C]), noise(rng, sigma))
        factors.append(clock.factor(A))
    assert clock.drift.changes <= 20 * per_thousand
    # What is taken for one does little harm.
    factors.sort()
    assert factors[1000] > 1 - sigma
    assert factors[-1000] < 1 + sigma


def test_what_noise_is_usual_is_forgotten_too() -> None:
    rng = random.Random(1)
    clock = fed([noise(rng, 0.8) for _ in range(500)])
    clock.run(A, *[1.0] * 80)
    clock.run(A, *[2.0] * 4)
    assert clock.factor(A) == pytest.approx(2.0)


def test_an_outlier_now_and_then_moves_nothing() -> None:
    clock = fed([1.0] * 10)
    for _ in range(20):
        clock.run(A, 5.0, 1.0, 1.0)
        assert clock.factor(A) == pytest.approx(1.0)
    assert clock.drift.changes == 0


def test_two_batches_however_far_off_are_no_change() -> None:
    clock = fed([1.0] * 20)
    clock.run(A, 1000.0, 1000.0, 1.3)
    assert clock.factor(A) == pytest.approx(1.0)
    assert clock.drift.changes == 0


def test_what_never_ran_since_the_machine_slowed_down_inherits_it() -> None:
    clock = Clock(Drift())
    for _ in range(20):
        for key in (A, B, C):
            clock.run(key, 1.0)
    for key in (A, B, A, B):
        clock.run(key, 2.0)
    for key in (A, B, C, UNSEEN, ("other", "model")):
        assert clock.factor(key) == pytest.approx(2.0)
    assert clock.drift.changes == 1


def test_a_variant_that_is_slow_by_itself_slows_no_other() -> None:
    clock = Clock(Drift())
    for _ in range(30):
        for key, ratio in ((A, 2.0), (B, 1.0), (C, 1.0)):
            clock.run(key, ratio)
    assert clock.factor(A) == pytest.approx(2.0, rel=0.1)
    for key in (B, C, UNSEEN):
        assert clock.factor(key) == pytest.approx(1.0, rel=0.1)
    # Its own and the machine's multiply.
    for _ in range(3):
        for key, ratio in ((A, 4.0), (B, 2.0), (C, 2.0)):
            clock.run(key, ratio)
    assert clock.factor(A) == pytest.approx(4.0, rel=0.15)
    assert clock.factor(UNSEEN) == pytest.approx(2.0, rel=0.15)


def test_a_variant_that_turns_slow_by_itself_is_followed_while_others_run() -> None:
    clock = Clock(Drift())
    for ratio, rounds in ((1.0, 30), (3.0, 5)):
        for _ in range(rounds):
            for key in (A, B, C):
                clock.run(key, ratio if key == A else 1.0)
    assert clock.factor(A) > 2.0
    assert clock.factor(B) == pytest.approx(1.0, rel=0.1)
    assert clock.drift.changes == 0


def test_variants_that_take_turns_are_told_apart() -> None:
    clock = Clock(Drift())
    for _ in range(10):
        clock.run(A, 2.0, 2.0, 2.0, 2.0)
        clock.run(B, 1.0, 1.0, 1.0, 1.0)
    assert clock.factor(A) == pytest.approx(2.0, rel=0.1)
    assert clock.factor(B) == pytest.approx(1.0, rel=0.1)


def test_where_a_variant_runs_alone_all_is_the_machines() -> None:
    clock = Clock(Drift())
    for _ in range(30):
        for key, ratio in ((A, 2.0), (B, 1.0), (C, 1.0)):
            clock.run(key, ratio)
    for _ in range(50):
        clock.now_s += 1
        clock.run(A, 2.0)
    for key in (A, B, UNSEEN):
        assert clock.factor(key) == pytest.approx(2.0)


def test_few_batches_of_a_variant_count_for_less_than_many() -> None:
    def after(batches: int) -> float:
        clock = Clock(Drift())
        for number in range(40):
            clock.run(B, 1.0)
            clock.run(C, 1.0)
            if number >= 40 - batches:
                clock.run(A, 1.2)
        return clock.factor(A)

    assert 1.0 == after(2) < after(3) < after(5) < after(12) <= 1.2


def test_a_variant_is_believed_again_when_it_has_not_run_for_a_while() -> None:
    clock = Clock(Drift())
    for _ in range(30):
        for key, ratio in ((A, 2.0), (B, 1.0), (C, 1.0)):
            clock.run(key, ratio)
    slow = clock.factor(A)
    clock.now_s += OLDEST_S - 1
    clock.run(B, 1.0)
    assert clock.factor(A) == pytest.approx(slow, rel=0.1)
    clock.now_s += 2
    assert clock.factor(A) == clock.factor(UNSEEN) == pytest.approx(1.0, rel=0.1)
    clock.run(B, 1.0, 1.0, 1.0)
    assert clock.factor(A) == clock.factor(UNSEEN) == pytest.approx(1.0, rel=0.1)
    # And learnt afresh: its batches surprise from the first.
    clock.run(A, 2.0)
    assert clock.factor(A) == clock.factor(UNSEEN)
    assert clock.drift.changes == 0
    clock.run(A, 2.0, 2.0)
    assert clock.drift.changes == 1


def test_batches_that_are_too_old_are_dropped_and_later_ones_are_not() -> None:
    clock = fed([1.0] * 8)
    clock.now_s = OLDEST_S - 1
    clock.run(A, 1.2, 1.2)
    assert clock.factor(A) == pytest.approx(1.0)
    clock.now_s += 2
    clock.run(A, 1.2)
    assert clock.factor(A) == pytest.approx(1.2)


def test_after_a_quiet_while_every_card_is_believed() -> None:
    clock = fed([2.0] * 20)
    clock.now_s += OLDEST_S - 0.1
    assert clock.factor(A) == pytest.approx(2.0)
    clock.now_s += 0.2
    assert clock.factor(A) == 1.0
    clock.run(A, 2.0, 2.0)
    assert clock.factor(A) == 1.0
    clock.run(A, 2.0)
    assert clock.factor(A) == pytest.approx(2.0)


def test_what_other_threads_read_is_replaced_and_never_changed() -> None:
    clock = Clock(Drift())
    for _ in range(5):
        for key in (A, B, C):
            clock.run(key, 1.2)
    _, _, own = clock.drift._state
    before = dict(own)
    clock.run(A, 3.0, 3.0, 3.0, 3.0)
    clock.run(UNSEEN, 1.0)
    assert own == before


ratios = st.lists(st.floats(0.01, 100), min_size=1, max_size=60)
batches = st.lists(
    st.tuples(st.sampled_from([A, B, C]), st.floats(0.01, 1000), st.floats(0.01, 1000)),
    max_size=100,
)


def taught(samples: list[tuple[Key, float, float]], scale: float = 1.0) -> dict[str, float]:
    drift, now_s = Drift(), 0.0
    for number, (key, expected_ms, actual_ms) in enumerate(samples):
        now_s = number * 0.7
        drift.observe(key, expected_ms * scale, actual_ms * scale, now_s)
    return drift.factors("m", "abcd", now_s)


@given(batches)
def test_the_same_batches_make_the_same_factors_above_zero(
    samples: list[tuple[Key, float, float]],
) -> None:
    factors = taught(samples)
    assert factors == taught(samples)
    assert all(factor > 0 for factor in factors.values())


@given(batches, st.sampled_from([2.0**-10, 0.5, 8.0, 1024.0]))
def test_the_unit_of_time_does_not_matter(
    samples: list[tuple[Key, float, float]], scale: float
) -> None:
    assert taught(samples, scale) == taught(samples)


@given(ratios)
def test_alone_a_variant_is_as_slow_as_its_batches_were(seen: list[float]) -> None:
    low, high = min(*seen, 1.0), max(*seen, 1.0)
    assert low * 0.999 <= fed(seen).factor(A) <= high * 1.001


@given(st.lists(st.floats(0.95, 1.15), min_size=3, max_size=WINDOW), st.randoms())
def test_the_order_of_batches_does_not_matter_where_nothing_changed(
    seen: list[float], rng: random.Random
) -> None:
    shuffled = rng.sample(seen, len(seen))
    assert fed(shuffled).factor(A) == pytest.approx(fed(seen).factor(A))


@given(ratios, st.lists(st.floats(0.95, 1.15), min_size=WINDOW, max_size=WINDOW))
def test_a_full_window_forgets_what_came_before(before: list[float], last: list[float]) -> None:
    assert fed([*before, *last]).factor(A) == pytest.approx(fed(last).factor(A))
