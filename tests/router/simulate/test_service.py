"""Service times: what is drawn agrees with what was measured, and with the bound's work."""

from __future__ import annotations

import math
from random import Random
from statistics import quantiles

import pytest

from router.card import LatencyPoint
from router.simulate.bound import least_ms
from router.simulate.service import BadNoise, Noise, noise, noisy, service


def point(batch: int, p50: float, p95: float, p99: float, spread: float = 0.0) -> LatencyPoint:
    return LatencyPoint(
        batch=batch, threads=1, runs=9, p50_ms=p50, p95_ms=p95, p99_ms=p99, spread_ms=spread
    )


CARD = (point(1, 1.0, 1.2, 1.5, 0.1), point(8, 5.0, 6.0, 7.0, 9.0))


@pytest.mark.parametrize(("rows", "expected"), [(1, (1, 1.2, 1.5)), (8, (5, 6, 7))])
def test_draws_have_the_percentiles_of_the_card(
    rows: int, expected: tuple[float, float, float]
) -> None:
    made, rng = service(CARD, Noise(), 32), Random(1)
    drawn = [made.draw_ms(rows, rng) for _ in range(40_000)]
    cuts = quantiles(drawn, n=100)
    assert (cuts[49], cuts[94], cuts[98]) == pytest.approx(expected, rel=0.03)


def test_the_ends_are_the_spread_below_and_the_tail_above() -> None:
    made = service(CARD, Noise(), 32)
    assert [table[1] for table in made.ms] == pytest.approx([0.9, 1.0, 1.2, 1.5, 1.8])
    # A spread that is larger than half of the median says nothing of the fastest run.
    assert [table[8] for table in made.ms] == pytest.approx([2.5, 5, 6, 7, 8])
    assert [table[4] for table in made.ms][1] == pytest.approx(1 + 4 * 3 / 7)


def test_never_faster_for_more_rows() -> None:
    made = service((point(1, 2, 2, 9), point(2, 1, 3, 4)), Noise(), 32)
    assert all(table[2] >= table[1] for table in made.ms)
    assert all(low[2] <= high[2] for low, high in zip(made.ms, made.ms[1:], strict=False))


def test_a_single_time_is_exact_and_so_is_no_noise() -> None:
    for made in (service((point(1, 2, 2, 2),), Noise(), 32), service(CARD[:1], Noise("none"), 32)):
        assert {made.draw_ms(1, Random(seed)) for seed in range(9)} == {made.ms[0][1]}


def test_more_rows_than_a_batch_holds_run_in_several() -> None:
    made = service((point(1, 1, 1, 1), point(4, 3, 3, 3)), Noise(), 32)
    assert made.draw_ms(9, Random(0)) == pytest.approx(3 + 3 + 1)
    assert made.shortest_ms(9) == pytest.approx(7) and made.shortest_ms(8) == pytest.approx(6)
    assert service((point(1, 1, 1, 1), point(4, 3, 3, 3)), Noise(), 2).max_batch == 2


def test_lognormal_keeps_the_median_and_scatters_as_told() -> None:
    made, rng = service(CARD, Noise("lognormal", 0.2), 32), Random(2)
    logs = [math.log(made.draw_ms(8, rng) / 5.0) for _ in range(40_000)]
    mean = sum(logs) / len(logs)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logs) / len(logs))
    assert mean == pytest.approx(0, abs=0.005) and deviation == pytest.approx(0.2, rel=0.03)
    (first, _) = noisy(CARD, Noise("lognormal", 0.2))
    assert first.p50_ms == 1.0 and first.p99_ms == pytest.approx(math.exp(0.2 * 2.3263), rel=1e-3)


def test_what_the_scheduler_is_told_follows_the_noise() -> None:
    assert noisy(CARD, Noise()) == CARD
    assert [p.p99_ms for p in noisy(CARD, Noise("none"))] == [1.0, 5.0]


def test_the_bounds_work_is_the_best_batch_and_no_more_than_the_mean() -> None:
    made, rng = service(CARD, Noise(), 32), Random(3)
    mean_8 = sum(made.draw_ms(8, rng) for _ in range(20_000)) / 20_000 / 8
    points = [(q, table[8]) for q, table in zip(made.qs, made.ms, strict=True)]
    assert made.work_ms() == pytest.approx(least_ms(points) / 8)
    assert made.work_ms() <= mean_8 * 1.01
    exact = service((point(1, 2, 2, 2), point(4, 5, 5, 5)), Noise(), 32)
    assert exact.work_ms() == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("measured", Noise("measured")),
        (" None ", Noise("none")),
        ("lognormal:0.1", Noise("lognormal", 0.1)),
    ],
)
def test_noise_is_named(text: str, expected: Noise) -> None:
    assert noise(text) == expected


@pytest.mark.parametrize("text", ["", "some", "lognormal", "lognormal:", "lognormal:0",
                                  "lognormal:-1", "lognormal:9", "lognormal:nan"])  # fmt: skip
def test_noise_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(BadNoise, match="expected measured, none, or lognormal:SIGMA"):
        noise(text)
