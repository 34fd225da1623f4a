"""The table and the frontier."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from compressors import artifact, report
from compressors.pictures import figures, frontier
from router.card import EngineTrial, LatencyPoint, VariantCard


@pytest.fixture(scope="module")
def cards(tiny_store: Path) -> list[VariantCard]:
    return [artifact.read(path) for path in sorted((tiny_store / "tiny").iterdir())]


def printed(cards: list[VariantCard], width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(report.table(cards, 0.05, width))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_table_shows_every_variant_and_figure(cards: list[VariantCard]) -> None:
    text = printed(cards, 200)
    for card in cards:
        (line,) = [line for line in text.splitlines() if line.startswith(f"│ {card.variant} ")]
        assert f"{100 * card.accuracy.value:.2f}" in line
        assert f"{card.latency[0].p50_ms:.2f} / {card.latency[0].p99_ms:.2f}" in line
    assert "reference" in text
    first = next(line for line in text.splitlines() if line.startswith("│"))
    assert first.startswith("│ fp32 ")


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_narrow_terminal_gets_fewer_columns_and_no_cut_words(
    cards: list[VariantCard], width: int
) -> None:
    text = printed(cards, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_cost_is_time_on_a_lane_at_the_best_batch(cards: list[VariantCard]) -> None:
    card = cards[0]
    best = figures.best_batch(card)
    per_row = [point.p50_ms / point.batch for point in card.latency]
    assert best.p50_ms / best.batch == min(per_row)
    # One USD an hour: a million rows of m ms are m x 1e6 / 3.6e6 USD.
    assert figures.usd_per_million(card, 1.0) == pytest.approx(min(per_row) * 1e6 / 3.6e6)
    assert figures.usd_per_million(card, 0.5) == pytest.approx(
        figures.usd_per_million(card, 1.0) / 2
    )


def with_times(card: VariantCard, times: dict[str, tuple[float, float]], own: str) -> VariantCard:
    """The card as if each engine took (ms alone, ms at 32)."""

    def points(pair: tuple[float, float]) -> tuple[LatencyPoint, ...]:
        return tuple(
            LatencyPoint(
                batch=batch, threads=1, runs=9, p50_ms=ms, p95_ms=ms, p99_ms=ms, spread_ms=0.0
            )
            for batch, ms in zip((1, 32), pair, strict=True)
        )

    trials = tuple(
        EngineTrial(
            name=name,
            version="1",
            format=name,
            kernels={"fp32": 1},
            validation=0.9,
            latency=points(pair),
            bytes_on_disk=1,
        )
        for name, pair in times.items()
    )
    return card.model_copy(
        update={"engines": trials, "latency": points(times[own]), "yardstick": ()}
    )


def test_speed_is_told_against_the_best_float_engine_and_against_eager(
    cards: list[VariantCard],
) -> None:
    times = {"openvino": (2.0, 40.0), "torch": (3.0, 32.0), "eager": (8.0, 64.0)}
    reference = with_times(cards[0], times, "openvino")
    card = with_times(cards[0], {"openvino": (0.5, 8.0)}, "openvino")
    assert figures.speedup(card, reference, 1) == (4.0, 16.0)
    assert figures.speedup(card, reference, 32) == (4.0, 8.0)  # torch is the best at 32
    assert figures.speedup(reference, reference, 1) == (1.0, 4.0)
    with pytest.raises(ValueError, match="batch 2 was not measured"):
        figures.speedup(card, reference, 2)


def test_a_card_of_one_engine_is_compared_with_that(cards: list[VariantCard]) -> None:
    card = with_times(cards[0], {"openvino": (2.0, 40.0)}, "openvino")
    reference = card.model_copy(update={"engines": ()})
    assert figures.speedup(card, reference, 1) == (1.0, None)
    assert "–" in printed(
        [reference.model_copy(update={"variant": "fp32", "reference": "fp32"})], 400
    )


def test_the_caption_says_what_faster_rests_on(cards: list[VariantCard]) -> None:
    assert figures.how_timed(cards) in " ".join(printed(cards, 200).split())


def test_a_wide_table_has_every_column_and_its_own_width(cards: list[VariantCard]) -> None:
    text = printed(cards, 400)
    for heading in ("engine", "memory", "disk", "than eager", "kernels", "USD / M", "best batch"):
        assert heading in text
    assert max(map(len, text.splitlines())) < 220


def test_the_front_is_what_no_other_beats() -> None:
    assert frontier.front([3, 1, 2, 4], [90, 80, 85, 88]) == [1, 2, 0]
    assert frontier.front([1, 1], [80, 90]) == [1]
    assert frontier.front([1, 2], [90, 90]) == [0]


def test_the_picture_is_a_png_of_the_promised_size(cards: list[VariantCard]) -> None:
    content = frontier.draw(cards, 0.05)
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (1800, 810)


def test_one_variant_makes_a_picture_too(cards: list[VariantCard]) -> None:
    assert frontier.draw(cards[:1], 0.0).startswith(b"\x89PNG")
