"""Tables of variants: what is read, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.simulate import table
from router.simulate.table import MODEL, BadTable, parse


def row(**changed: Any) -> dict[str, Any]:
    return {"name": "int8", "accuracy": 0.9, "latency_ms": {"1": 1.0, "8": 4.5}} | changed


def refused(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(BadTable) as caught:
        parse(text, "t.json")
    assert caught.value.detail.startswith("t.json: ")
    return caught.value.detail


@pytest.mark.parametrize(
    "latency", [{"1": 1, "8": 4.5}, [[1, 1], [8, 4.5]], {"1": {"p50": 1}, "8": {"p50": 4.5}}]
)
def test_times_are_an_object_or_pairs_and_lines_between_them(latency: object) -> None:
    listed = [row(latency_ms=latency), row(name="b", accuracy=0.95)]
    for document in (listed, {"variants": listed}, {"models": {MODEL: listed}}):
        ((model, rows),) = parse(json.dumps(document), "t").items()
        menu = table.menu(model, rows, percentile=99, usd_per_lane_hour=3.6, max_batch=6)
        offer = menu.by_name["int8"]
        assert offer.typical_ms == pytest.approx((0, 1, 1.5, 2, 2.5, 3, 3.5))
        assert offer.promised_ms == offer.typical_ms
        assert [one.name for one in menu.offers] == ["b", "int8"]
        assert (offer.accuracy_low, offer.share_low) == (0.9, pytest.approx(0.9 / 0.95))
        assert offer.cost_usd_per_million(1) == pytest.approx(1.0)


def test_percentiles_are_taken_and_p95_lies_between_where_it_is_not_stated() -> None:
    latency = {"1": {"p50": 1, "p99": 2}, "2": {"p50": 2, "p95": 3, "p99": 4}}
    ((_, (only,)),) = parse(json.dumps([row(latency_ms=latency)]), "t").items()
    first, second = only.latency
    assert 1 < first.p95_ms < 2 and (first.p50_ms, first.p99_ms) == (1, 2)
    assert (second.p50_ms, second.p95_ms, second.p99_ms) == (2, 3, 4)


def test_several_models_each_have_their_variants() -> None:
    found = parse(json.dumps({"models": {"a": [row()], "b": [row(), row(name="x")]}}), "t")
    assert {model: len(rows) for model, rows in found.items()} == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("3", "content: expected {"),
        ({}, "keys: expected {"),
        ({"variants": [row()], "more": 1}, "'variants, more'"),
        ([], "variants: expected a list of variants, one at least, got '[]'"),
        ({"variants": {}}, "variants: expected a list"),
        ({"models": {}}, "models: expected variants by the name"),
        ({"models": {"Not A Name": [row()]}}, "models: expected names matching"),
        ({"models": {"a": []}}, "model 'a': variants: expected"),
        ([3], "variant 1: content: expected an object with name, accuracy, latency_ms, got 3"),
        ([row(name="A B")], "variant 1: name: expected a name matching"),
        ([row(name=None)], "variant 1: name: expected a name matching"),
        ([row(), row()], "variant 2: name: expected a name no other has, got 'int8'"),
        ([row(speed=3)], "variant 'int8': speed: expected only name, accuracy, latency_ms"),
        ([row(accuracy=1.2)], "'int8': accuracy: expected a number from 0 to 1, got 1.2"),
        ([row(accuracy=93)], "accuracy: expected a number from 0 to 1, got 93"),
        ([row(accuracy=-0.1)], "got -0.1"),
        ([row(accuracy=True)], "accuracy: expected"),
        ([row(accuracy="0.9")], "got '0.9'"),
        ('[{"name": "a", "accuracy": NaN, "latency_ms": {"1": 1}}]', "accuracy: expected"),
        ('[{"name": "a", "name": "b"}]', "keys: expected each key once, got 'name'"),
        ([{"name": "a", "accuracy": 0.9}], "variant 'a': latency_ms: expected the time"),
        ([row(latency_ms={})], "latency_ms: expected the time of a batch in ms by its rows"),
        ([row(latency_ms=[])], "latency_ms: expected the time of a batch in ms by its rows"),
        ([row(latency_ms=[1, 2])], "latency_ms: expected the time"),
        ([row(latency_ms=3)], "latency_ms: expected the time"),
        ([row(latency_ms={"8": 3})], "expected batch 1 first, got 'batch 8 first'"),
        ([row(latency_ms={"1": 1, "8": 3, "4": 2})], "batches that rise, got 'batch 4 after 8'"),
        ([row(latency_ms=[[1, 1], [1, 2]])], "batches that rise, got 'batch 1 after 1'"),
        ([row(latency_ms={"1": 1, "two": 3})], "whole numbers, 1 or more, got 'two'"),
        ([row(latency_ms={"0": 1})], "whole numbers, 1 or more, got '0'"),
        ([row(latency_ms=[[1.5, 1]])], "whole numbers from 1 to 4096, got 1.5"),
        ([row(latency_ms={"1": 1, "5000": 9})], "whole numbers from 1 to 4096, got 5000"),
        ([row(latency_ms={"1": -1})], "latency_ms of batch 1: expected a positive number of ms"),
        ([row(latency_ms={"1": 0})], "got 0"),
        ([row(latency_ms={"1": None})], "got 'nothing'"),
        ([row(latency_ms={"1": {"p99": 1}})], "latency_ms of batch 1: expected p50, and p95"),
        ([row(latency_ms={"1": {"p50": 1, "p42": 1}})], "got 'p50, p42'"),
        ([row(latency_ms={"1": {"p50": 2, "p99": 1}})], "expected p50 <= p95 <= p99"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(document: object, words: str) -> None:
    assert words in refused(document)
