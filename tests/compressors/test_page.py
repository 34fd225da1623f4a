"""The frontier as a page: all is there, nothing is fetched, nothing that a card says runs."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from compressors import artifact
from compressors.pictures import figures, page, scatter
from router.card import VariantCard

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
VOID = {"meta", "input", "br", "img", "link"}


class Parsed(HTMLParser):
    """A page's elements, its text outside of scripts, and whether its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def all(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        return [
            about
            for name, about in self.elements
            if name == tag and (not kind or kind in about.get("class", "").split())
        ]


@pytest.fixture(scope="module")
def cards(tiny_store: Path) -> list[VariantCard]:
    folders = sorted((tiny_store / "tiny").iterdir())
    return [artifact.read(path) for path in folders if (path / "card.json").is_file()]


def test_every_variant_is_in_every_plot_in_the_table_and_in_full(cards: list[VariantCard]) -> None:
    parsed = Parsed(page.render(cards, 0.05))
    assert parsed.open == []
    names = {card.variant for card in cards}
    points = [about["data-variant"] for about in parsed.all("g", "point")]
    assert sorted(points) == sorted([*names] * 4)
    assert {about["id"] for about in parsed.all("details")} == {f"variant-{n}" for n in names}
    links = {about["href"] for about in parsed.all("a")}
    assert links == {f"#variant-{n}" for n in names}
    for card in cards:
        assert f"{100 * card.accuracy.value:.2f} [{100 * card.accuracy.low:.1f}, " in parsed.text
        for step in card.recipe:
            assert step.technique in parsed.text
            assert all(name in parsed.text for name in step.settings)
    assert cards[0].machine.cpu in parsed.text and cards[0].created[:10] in parsed.text


def test_nothing_is_fetched_and_there_is_one_script_of_its_own(cards: list[VariantCard]) -> None:
    text = page.render(cards, 0.05)
    parsed = Parsed(text)
    assert "http:" not in text and "https:" not in text and "url(" not in text
    assert "@import" not in text and not parsed.all("link") and not parsed.all("img")
    (script,) = parsed.all("script")
    assert "src" not in script


def test_points_can_be_reached_by_key_and_say_what_they_are(cards: list[VariantCard]) -> None:
    parsed = Parsed(page.render(cards, 0.05))
    for point in parsed.all("g", "point"):
        assert point["tabindex"] == "0" and point["role"] == "button"
        assert point["aria-label"].startswith(point["data-variant"] + "; ")
        assert point["data-tip"].startswith(point["data-variant"] + "\n")
    choices = parsed.all("input")
    assert [about["id"] for about in choices] == [f"by-{m.name}" for m in figures.measures(1.0)]
    assert {about["for"] for about in parsed.all("label")} == {about["id"] for about in choices}
    assert sum("checked" in about for about in choices) == 1


def test_what_a_card_says_never_runs(cards: list[VariantCard]) -> None:
    card = cards[0]
    step = card.recipe[0] if card.recipe else cards[1].recipe[0]
    evil = card.model_copy(
        update={
            "description": EVIL,
            "recipe": (step.model_copy(update={"technique": EVIL, "settings": {EVIL: EVIL}}),),
            "refused": {"torch": EVIL},
            "task": card.task.model_copy(update={"metric": EVIL}),
            "machine": card.machine.model_copy(update={"cpu": EVIL}),
            "engine": card.engine.model_copy(update={"version": EVIL, "constructor": EVIL}),
            "engines": (),
            "versions": {EVIL: EVIL},
            "variant": "fp32",
            "reference": "fp32",
            "seeds": {EVIL: 1},
        }
    )
    parsed = Parsed(page.render([evil], 0.05))
    assert len(parsed.all("script")) == 1 and not parsed.all("img")
    assert not [about for _, about in parsed.elements if any(n.startswith("on") for n in about)]
    # A capitalised metric and JSON's quotes aside, it stands there as it was written.
    assert parsed.text.count("alert(2)>\"'&") >= 7 and parsed.open == []


def test_engines_tried_and_refused_are_told(cards: list[VariantCard]) -> None:
    reference = figures.reference_of(cards)
    card = reference.model_copy(update={"refused": {"torch": "it has no such kernel"}})
    text = Parsed(page.render([card], 0.05)).text
    assert "it has no such kernel" in text
    for trial in card.engines:
        assert trial.version in text and f"{100 * trial.validation:.2f}" in text


def test_what_the_reference_took_in_turn_is_told(cards: list[VariantCard]) -> None:
    parsed = Parsed(page.render(cards, 0.05))
    assert figures.how_timed(cards) in parsed.text
    for card in cards:
        for point in card.yardstick:
            assert scatter.digits(point.p50_ms) in parsed.text
    old = [card.model_copy(update={"yardstick": ()}) for card in cards]
    assert "for every variant, which has no such times" in Parsed(page.render(old, 0.05)).text


def test_a_beaten_variant_is_faint_and_names_who_beats_it(cards: list[VariantCard]) -> None:
    reference = figures.reference_of(cards)
    slow = tuple(
        point.model_copy(
            update={name: 100 * getattr(point, name) for name in ("p50_ms", "p95_ms", "p99_ms")}
            | {"spread_ms": 0.0}
        )
        for point in reference.latency
    )
    loser = reference.model_copy(update={"variant": "loser", "latency": slow})
    parsed = Parsed(page.render([reference, loser], 0.05))
    faint = [about for about in parsed.all("g", "point") if "beaten" in about["class"].split()]
    assert {about["data-variant"] for about in faint} == {"loser"} and len(faint) >= 2
    assert f"beaten by {reference.variant} in latency" in faint[0]["data-tip"]
    assert len(parsed.all("tr", "beaten")) == 1


def test_one_variant_and_a_price_of_zero_make_a_page_too(cards: list[VariantCard]) -> None:
    parsed = Parsed(page.render([figures.reference_of(cards)], 0.0))
    assert len(parsed.all("g", "point")) == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.03124, "0.0312"), (1.5, "1.50"), (14.04, "14.0"), (12345.6, "12,346"),
     (1.23e-7, "1.23e-07"), (1.234e-5, "0.0000123")],
)  # fmt: skip
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert scatter.digits(value) == text
