"""The card as a file: what older ones lack, and what may not stand in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from router.card import CARD_FILE, VariantCard
from tests.stores import write_variant


@pytest.fixture
def card(tmp_path: Path) -> dict[str, Any]:
    folder = write_variant(tmp_path, "echo", "small", reference="fp32")
    found: dict[str, Any] = json.loads((folder / CARD_FILE).read_bytes())
    return found


def loaded(card: dict[str, Any]) -> VariantCard:
    return VariantCard.model_validate_json(json.dumps(card))


def test_a_card_from_before_there_was_a_yardstick_is_read(card: dict[str, Any]) -> None:
    del card["yardstick"]
    assert loaded(card).yardstick == ()


def test_a_yardstick_is_read_as_it_was_written(card: dict[str, Any]) -> None:
    card["yardstick"] = [{**point, "p50_ms": 0.5} for point in card["latency"]]
    found = loaded(card)
    assert [point.p50_ms for point in found.yardstick] == [0.5, 0.5]
    assert loaded(found.model_dump(mode="json")) == found


def test_a_yardstick_of_other_batches_is_refused(card: dict[str, Any]) -> None:
    card["yardstick"] = card["latency"][:1]
    with pytest.raises(ValidationError, match=r"batches of latency, \[1, 32\], got \[1\]"):
        loaded(card)


def test_free_sizes_that_were_measured_equal_belong_together(card: dict[str, Any]) -> None:
    assert loaded(card).equal_sizes() == ()
    card["inputs"] = [
        {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "mask", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "image", "datatype": "FP32", "shape": [-1, 64, -1]},
    ]
    card["measured_shapes"] = {"ids": [64], "mask": [64], "image": [64, 8]}
    assert loaded(card).equal_sizes() == ((("ids", 1), ("mask", 1)),)
    card["measured_shapes"] = {}  # a card from before they were told
    assert loaded(card).equal_sizes() == ()
