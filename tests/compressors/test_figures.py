"""Who beats whom, by cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressors import artifact, figures
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
) -> VariantCard:
    """The card with other figures; the drop's interval is `margin` to both sides."""
    pairs = ((1, alone_ms), (32, 32 * alone_ms if at_32_ms is None else at_32_ms))
    latency = tuple(
        LatencyPoint(
            batch=batch, threads=1, runs=9, p50_ms=ms, p95_ms=ms, p99_ms=ms, spread_ms=spread_ms
        )
        for batch, ms in pairs
    )
    paired = PairedDifference(value=-drop, low=-drop - margin, high=-drop + margin, method="test")
    return card.model_copy(update={"variant": name, "latency": latency, "paired": paired})


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
