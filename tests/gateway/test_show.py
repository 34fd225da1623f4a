"""A card in full, as the terminal shows it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from gateway.cli.show import _print
from gateway.lifecycle import catalog
from router.card import VariantCard


@pytest.fixture(scope="module")
def card(tiny_store: Path) -> VariantCard:
    return catalog.read_variant(tiny_store / "tiny" / "fp32").card


def shown(card: VariantCard, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), markup=False, highlight=False)
    _print(card, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [80, 160])
def test_all_fields_and_engines_fit(card: VariantCard, width: int) -> None:
    why = "it has no 8-bit kernel for layers that are as narrow as the ones of this network are"
    text = shown(card.model_copy(update={"refused": {"torch": why}}), width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    for name in VariantCard.model_fields:
        assert name.replace("_", " ") in text, name
    # Folded where the terminal is narrow, and all of it there.
    joined = "".join(text.split())
    assert why.replace(" ", "") in joined and card.parent_digest in joined
    for trial in card.engines:
        (line,) = [line for line in text.splitlines() if line.startswith(f"  │ {trial.name} ")]
        best = min(trial.latency, key=lambda point: point.p50_ms / point.batch)
        assert f"{trial.latency[0].p50_ms:.4g}" in line
        assert f"{best.batch}: {best.p50_ms:.4g}" in line
        assert f"{trial.validation:.4f}" in line
        assert f"{trial.format},{trial.version}" in joined


def test_what_is_not_there_is_said_in_words(card: VariantCard) -> None:
    bare = card.model_copy(update={"recipe": (), "engines": (), "refused": {}, "weights": None})
    text = shown(bare, 100)
    assert "None" not in text
    assert "none: the network as it is" in text and text.count("the network as it is") == 1
    assert "as the arithmetic has them" in text
    stored = shown(card.model_copy(update={"weights": "int4"}), 100)
    assert "weights         int4" in stored


def test_a_constructor_is_told_and_seeds_are_no_counts(card: VariantCard) -> None:
    engine = card.engine.model_copy(update={"constructor": "flowers.py:Flowers"})
    text = shown(card.model_copy(update={"engine": engine, "seeds": {"bootstrap": 20260}}), 100)
    assert "flowers.py:Flowers" in text and "20260" in text and "20,260" not in text


def test_what_the_reference_took_in_turn_is_a_table_of_its_own(
    card: VariantCard, tiny_store: Path
) -> None:
    assert "yardstick\n  none" in shown(card, 80)
    variant = catalog.read_variant(tiny_store / "tiny" / "int8").card
    text = shown(variant, 80)
    assert max(map(len, text.splitlines())) <= 80
    rows = text.split("\nyardstick\n")[1].split("\nmeasured shapes\n")[0].splitlines()
    for point in variant.yardstick:
        (line,) = [line for line in rows if line.startswith(f"  │ {point.batch:>5} ")]
        assert f"{point.p50_ms:.4g}" in line
