"""Who beats whom, by cards."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors import artifact
from compressors.pictures import figures
from router.card import LatencyPoint, PairedDifference, VariantCard

LATENCY, COST, SIZE, MEMORY = figures.measures(1.0)


@pytest.fixture(scope="module")
def card(tiny_store: Path) -> VariantCard:
    return artifact.read(tiny_store / "tiny" / "fp32")


def made(
    card: VariantCard,
    name: str,
    alone_ms: float,
    *,
    spread_ms: float = 0.1,
    at_32_ms: float | None = None,
    drop: float = 0.0,
    margin: float = 0.01,
    yardstick: tuple[LatencyPoint, ...] = (),
) -> VariantCard:
    """The card with other figures; the drop's interval is `margin` to both sides."""
    paired = PairedDifference(value=-drop, low=-drop - margin, high=-drop + margin, method="test")
    return card.model_copy(
        update={
            "variant": name,
            "latency": points(alone_ms, at_32_ms, spread_ms),
            "yardstick": yardstick,
            "paired": paired,
        }
    )


def points(
    alone_ms: float, at_32_ms: float | None = None, spread_ms: float = 0.1
) -> tuple[LatencyPoint, ...]:
    pairs = ((1, alone_ms), (32, 32 * alone_ms if at_32_ms is None else at_32_ms))
    return tuple(
        LatencyPoint(
            batch=batch, threads=1, runs=9, p50_ms=ms, p95_ms=ms, p99_ms=ms, spread_ms=spread_ms
        )
        for batch, ms in pairs
    )


def on_a_slower_machine(card: VariantCard, times: float) -> VariantCard:
    """The card as a machine would have made it that is so many times as slow."""
    names = ("p50_ms", "p95_ms", "p99_ms", "spread_ms")

    def slowed(found: tuple[LatencyPoint, ...]) -> tuple[LatencyPoint, ...]:
        return tuple(p.model_copy(update={n: times * getattr(p, n) for n in names}) for p in found)

    return card.model_copy(
        update={"latency": slowed(card.latency), "yardstick": slowed(card.yardstick)}
    )


def test_faster_beyond_the_spread_and_as_accurate_beats(card: VariantCard) -> None:
    slow, fast = made(card, "slow", 2.0), made(card, "fast", 1.0)
    assert figures.beaten([slow, fast], LATENCY) == {"slow": "fast"}
    near = made(card, "near", 1.05)
    assert figures.beaten([near, fast], LATENCY) == {}
    assert figures.beaten([made(card, "slow", 2.0, spread_ms=1.5), fast], LATENCY) == {}


def test_what_is_more_accurate_is_not_beaten_by_what_is_faster(card: VariantCard) -> None:
    slow, fast = made(card, "slow", 2.0), made(card, "fast", 1.0, drop=0.001)
    assert figures.beaten([slow, fast], LATENCY) == {}


def test_more_accurate_beats_where_the_intervals_do_not_meet(card: VariantCard) -> None:
    good, bad = made(card, "good", 1.0), made(card, "bad", 1.05, drop=0.03)
    assert figures.beaten([good, bad], LATENCY) == {"bad": "good"}
    assert figures.beaten([good, made(card, "bad", 1.05, drop=0.015)], LATENCY) == {}


def test_each_measure_has_its_own_frontier(card: VariantCard) -> None:
    alone = made(card, "alone", 1.0, at_32_ms=32.0)
    batched = made(card, "batched", 2.0, at_32_ms=8.0, drop=-0.001)
    poor = made(card, "poor", 3.0, at_32_ms=64.0)
    cards = [alone, batched, poor]
    assert figures.beaten(cards, LATENCY) == {"poor": "batched"}
    assert figures.beaten(cards, COST) == {"alone": "batched", "poor": "batched"}
    assert figures.beaten_everywhere(cards, 1.0) == {"poor": "batched"}
    exact = made(card, "exact", 2.5, at_32_ms=128.0, drop=-0.002)
    assert figures.beaten_everywhere([*cards, exact], 1.0) == {"poor": "exact and batched"}


def test_bytes_differ_by_one_and_memory_only_by_more_than_a_repeat_does(card: VariantCard) -> None:
    other = card.model_copy(
        update={
            "variant": "smaller",
            "bytes_on_disk": card.bytes_on_disk - 1,
            "resident_bytes": max(1, card.resident_bytes - 1),
        }
    )
    assert figures.beaten([card, other], SIZE) == {card.variant: "smaller"}
    assert figures.beaten([card, other], MEMORY) == {}


def test_the_reference_is_found_or_missed_by_name(card: VariantCard) -> None:
    others = [made(card, "a", 1.0), made(card, "b", 1.0)]
    assert figures.reference_of([*others, card]) is card
    with pytest.raises(ValueError, match=r"no reference among \['a', 'b'\]"):
        figures.reference_of(others)


def test_the_reference_is_beaten_by_what_is_shown_to_be_more_accurate(card: VariantCard) -> None:
    reference = made(card, card.reference, 1.05)  # an interval that small samples have
    better = made(card, "better", 1.0, drop=-0.015)
    assert figures.beaten([reference, better], LATENCY) == {card.reference: "better"}
    unclear = made(card, "unclear", 1.0, drop=-0.005)
    assert figures.beaten([reference, unclear], LATENCY) == {}


def with_engines(card: VariantCard, times: dict[str, tuple[float, float]]) -> VariantCard:
    """The card with engines that took (ms alone, ms at 32)."""
    trial = card.engines[0]
    trials = (
        trial.model_copy(update={"name": name, "latency": points(*pair)})
        for name, pair in times.items()
    )
    return card.model_copy(update={"engines": tuple(trials)})


@given(times=st.floats(0.1, 10))
def test_a_slower_machine_gives_the_same_speed_up(card: VariantCard, times: float) -> None:
    reference = with_engines(
        made(card, card.reference, 4.0, at_32_ms=64.0),
        {"openvino": (4.0, 64.0), "torch": (5.0, 48.0), "eager": (8.0, 96.0)},
    )
    # In its own run the reference was a little slower than on its own card.
    found = made(card, "fast", 2.5, at_32_ms=20.0, yardstick=points(5.0, 80.0))
    for batch, expected in ((1, (2.0, 4.0)), (32, (3.0, 6.0))):
        assert figures.speedup(found, reference, batch) == pytest.approx(expected)
        slow = on_a_slower_machine(found, times)
        assert figures.speedup(slow, reference, batch) == pytest.approx(expected)


@given(times=st.floats(0.1, 10))
def test_who_beats_whom_does_not_depend_on_when_each_was_measured(
    card: VariantCard, times: float
) -> None:
    beside = points(4.0)
    reference = made(card, card.reference, 4.0)
    slow = made(card, "slow", 2.0, yardstick=beside)
    fast = made(card, "fast", 1.0, yardstick=beside)
    for measure in (LATENCY, COST):
        expected = figures.beaten([reference, slow, fast], measure)
        assert expected == {card.reference: "slow", "slow": "fast"}
        for cards in (
            [reference, slow, on_a_slower_machine(fast, times)],
            [reference, on_a_slower_machine(slow, times), fast],
        ):
            assert figures.beaten(cards, measure) == expected


def test_without_a_yardstick_times_are_compared_as_they_stand(card: VariantCard) -> None:
    reference, slow = made(card, card.reference, 4.0), made(card, "slow", 2.0)
    assert figures.in_run_of(reference, slow) is slow
    fast_once = on_a_slower_machine(made(card, "fast", 1.0), 3.0)
    assert figures.beaten([reference, slow, fast_once], LATENCY)["fast"] == "slow"


def test_bytes_are_the_same_on_any_machine(card: VariantCard) -> None:
    reference = made(card, card.reference, 4.0)
    found = made(card, "fast", 2.0, yardstick=points(8.0))
    scaled = figures.in_run_of(reference, found)
    assert [point.p50_ms for point in scaled.latency] == [1.0, 32.0]
    assert scaled.latency[0].spread_ms == pytest.approx(0.05)
    for measure in (SIZE, MEMORY):
        assert measure.value(scaled) == measure.value(found)


def test_a_caption_says_what_faster_rests_on(card: VariantCard) -> None:
    reference, old = made(card, card.reference, 4.0), made(card, "old", 2.0)
    new = made(card, "new", 2.0, yardstick=points(4.0))
    assert figures.how_timed([reference, new]).endswith("timed in turn with each variant.")
    assert "for old, which has no such times" in figures.how_timed([reference, old, new])
    assert "for every variant, which has no such" in figures.how_timed([reference, old])
