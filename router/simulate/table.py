"""The table: variants declared by hand, where there is no store to read.

JSON: for each variant its name, its accuracy, and how long a batch takes by its rows:

    {"variants": [
        {"name": "fp32", "accuracy": 0.935, "latency_ms": {"1": 2.1, "8": 16.5, "32": 65.7}},
        {"name": "int8", "accuracy": 0.933, "latency_ms": [[1, 0.67], [8, 4.7], [32, 18.3]]},
        {"name": "tiny", "accuracy": 0.880, "latency_ms": {"1": {"p50": 0.15, "p99": 0.21}}}
    ]}

The list may also stand alone. Several models are `{"models": {"a": [...], "b": [...]}}`. Between
the batches that are stated, times are straight lines; they begin at batch 1. Accuracies are taken
as certain, and relative floors refer to the most accurate variant.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

from router.card import NAME_PATTERN, LatencyPoint
from router.errors import GearshiftError
from router.menu import SECONDS_PER_HOUR, Menu, Offer, Percentile, by_rows

# What the only model of a table is called.
MODEL = "model"

_NAME = re.compile(NAME_PATTERN)
_BATCH = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)
_MOST_BATCH = 4096
_VARIANT_KEYS = ("name", "accuracy", "latency_ms")
_PERCENTILES = ("p50", "p95", "p99")
_TABLE = (
    "the time of a batch in ms by its rows, such as "
    '{"1": 0.7, "8": 4.7} or [[1, 0.7], [8, 4.7]], batch 1 first'
)


class BadTable(GearshiftError):
    """A table that cannot be used. Names it, the variant and the field, and what was expected."""

    code = "bad-table"
    title = "Invalid table of variants"


@dataclass(frozen=True, slots=True)
class Row:
    """One variant of a table."""

    name: str
    accuracy: float
    latency: tuple[LatencyPoint, ...]


def parse(text: str, name: str) -> Mapping[str, tuple[Row, ...]]:
    """The variants that `text` declares, by model; a list without models is `MODEL`'s.

    Args:
        name: what messages call it.

    Raises:
        BadTable: not JSON, no variant, an unknown key, a value out of its domain, a name twice.
    """
    try:
        document = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise BadTable(f"{name}: expected JSON: {error}", table=name) from error
    if isinstance(document, list):
        return {MODEL: _variants(name, "", document)}
    expected = '{"variants": [...]}, {"models": {"NAME": [...]}}, or a list of variants'
    if not isinstance(document, _Object):
        _bad(name, "", "content", document, expected)
    top = document.unique(name, "")
    if set(top) == {"variants"}:
        return {MODEL: _variants(name, "", top["variants"])}
    if set(top) != {"models"}:
        _bad(name, "", "keys", ", ".join(top) or "none", expected)
    if not isinstance(top["models"], _Object) or not top["models"].pairs:
        _bad(name, "", "models", top["models"], "variants by the name of their model, one at least")
    models = top["models"].unique(name, "models: ")
    for model in models:
        if not _NAME.fullmatch(model):
            _bad(name, "", "models", model, f"names matching {NAME_PATTERN}")
    return {model: _variants(name, f"model {model!r}: ", rows) for model, rows in models.items()}


def menu(
    model: str,
    rows: tuple[Row, ...],
    *,
    percentile: Percentile,
    usd_per_lane_hour: float,
    max_batch: int,
) -> Menu:
    """The menu of one model of a table."""
    price = usd_per_lane_hour / SECONDS_PER_HOUR / 1000 * 1_000_000
    best = max(row.accuracy for row in rows)
    offers = [
        Offer(
            name=row.name,
            accuracy=row.accuracy,
            accuracy_low=row.accuracy,
            accuracy_high=row.accuracy,
            share_low=row.accuracy / best if best > 0 else 0.0,
            promised_ms=by_rows(row.latency, percentile)[: max_batch + 1],
            typical_ms=by_rows(row.latency, 50)[: max_batch + 1],
            usd_per_million_lane_ms=price,
        )
        for row in rows
    ]
    offers.sort(key=lambda offer: (-offer.accuracy, offer.name))
    by_name = {offer.name: offer for offer in offers}
    return Menu(model, offers[0].name, tuple(offers), {}, by_name)


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object before its keys are known to differ."""

    pairs: list[tuple[str, Any]]

    def unique(self, table: str, where: str) -> dict[str, Any]:
        found = dict(self.pairs)
        if len(found) < len(self.pairs):
            keys = [key for key, _ in self.pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            _bad(table, where, "keys", twice, "each key once")
        return found


def _variants(table: str, where: str, listed: object) -> tuple[Row, ...]:
    if not isinstance(listed, list) or not listed:
        _bad(table, where, "variants", listed, "a list of variants, one at least")
    rows: dict[str, Row] = {}
    for place, item in enumerate(listed, 1):
        row = _row(table, where, place, item)
        if row.name in rows:
            _bad(table, f"{where}variant {place}: ", "name", row.name, "a name no other has")
        rows[row.name] = row
    return tuple(rows.values())


def _row(table: str, where: str, place: int, item: object) -> Row:
    numbered = f"{where}variant {place}: "
    if not isinstance(item, _Object):
        _bad(table, numbered, "content", item, f"an object with {', '.join(_VARIANT_KEYS)}")
    fields = item.unique(table, numbered)
    name = fields.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        _bad(table, numbered, "name", name, f"a name matching {NAME_PATTERN}")
    named = f"{where}variant {name!r}: "
    for key in fields:
        if key not in _VARIANT_KEYS:
            _bad(table, named, key, fields[key], "only " + ", ".join(_VARIANT_KEYS))
    accuracy = _number(fields.get("accuracy"))
    if accuracy is None or not 0 <= accuracy <= 1:
        _bad(table, named, "accuracy", fields.get("accuracy"), "a number from 0 to 1")
    return Row(name, accuracy, _latency(table, named, fields.get("latency_ms")))


def _latency(table: str, named: str, stated: object) -> tuple[LatencyPoint, ...]:
    if isinstance(stated, _Object):
        if any(not _BATCH.fullmatch(key) for key, _ in stated.pairs):
            wrong = next(key for key, _ in stated.pairs if not _BATCH.fullmatch(key))
            _bad(table, named, "latency_ms", wrong, "batches as whole numbers, 1 or more")
        pairs = [(int(key), value) for key, value in stated.pairs]
    elif isinstance(stated, list) and all(
        isinstance(item, list) and len(item) == 2 for item in stated
    ):
        pairs = [(batch, value) for batch, value in stated]
    else:
        _bad(table, named, "latency_ms", stated, _TABLE)
    if not pairs:
        _bad(table, named, "latency_ms", "no batch", _TABLE)
    for batch, _ in pairs:
        if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= _MOST_BATCH:
            expected = f"batches as whole numbers from 1 to {_MOST_BATCH}"
            _bad(table, named, "latency_ms", batch, expected)
    if pairs[0][0] != 1:
        _bad(table, named, "latency_ms", f"batch {pairs[0][0]} first", "batch 1 first")
    for (sooner, _), (later, _) in pairwise(pairs):
        if later <= sooner:
            _bad(
                table, named, "latency_ms", f"batch {later} after {sooner}", "batches that rise"
            )  # fmt: skip
    return tuple(_point(table, named, batch, value) for batch, value in pairs)


def _point(table: str, named: str, batch: int, value: object) -> LatencyPoint:
    where = f"latency_ms of batch {batch}"
    expected = "a positive number of ms, or percentiles such as {'p50': 0.7, 'p99': 0.9}"
    if not isinstance(value, _Object):
        stated = {"p50": value}
    else:
        stated = value.unique(table, named)
        if "p50" not in stated or not set(stated) <= set(_PERCENTILES):
            shown = ", ".join(stated) or "nothing"
            _bad(table, named, where, shown, "p50, and p95 and p99 where they are known")
    found = {key: _number(ms) for key, ms in stated.items()}
    for key, ms in found.items():
        if ms is None or not 0 < ms <= 1e9:
            _bad(table, named, where, stated[key], expected)
    p50 = found["p50"] or 0.0
    # What was not stated lies on the line between what was, by how rare it is.
    p99 = found.get("p99") or found.get("p95") or p50
    p95 = found.get("p95") or p50 + (p99 - p50) * math.log(0.5 / 0.05) / math.log(0.5 / 0.01)
    if not p50 <= p95 <= p99:
        _bad(
            table, named, where, ", ".join(f"{k} {found[k]:g}" for k in found), "p50 <= p95 <= p99"
        )
    return LatencyPoint(
        batch=batch, threads=1, runs=1, p50_ms=p50, p95_ms=p95, p99_ms=p99, spread_ms=0.0
    )


def _number(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        value = float(raw)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _bad(table: str, where: str, field: str, received: object, expected: str) -> NoReturn:
    shown: object = received
    if received is None:
        shown = "nothing"
    elif isinstance(received, _Object):
        shown = json.dumps(_plain(received))[:200]
    elif not isinstance(received, int | float):
        shown = str(received)[:200]
    raise BadTable(
        f"{table}: {where}{field}: expected {expected}, got {shown!r}",
        table=table,
        field=field,
        received=str(shown),
        expected=expected,
    )


def _plain(value: object) -> object:
    if isinstance(value, _Object):
        return {key: _plain(inner) for key, inner in value.pairs}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
