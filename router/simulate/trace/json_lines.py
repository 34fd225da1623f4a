"""JSON lines: an arrival on each, by the first key that is one of time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from decimal import Decimal

from router.simulate.trace import bad
from router.simulate.trace.cell import Moment, moment
from router.simulate.trace.columns import TIMES, UNITS_S, normalised, time_unit_s


def json_lines(name: str, text: str) -> Iterator[Moment]:
    """The arrival on each line of `text`."""
    column, unit_s = "", Decimal(1)
    for at, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_float=str, parse_int=str)
        except (ValueError, RecursionError) as error:
            expected = f"one JSON object on each line ({error})"
            raise bad(name, at, "line", line.strip(), expected) from error
        if not isinstance(record, dict):
            raise bad(name, at, "line", line.strip(), "one JSON object on each line")
        if not column:
            units = [(key, unit) for key in record if (unit := time_unit_s(key))]
            if not units:
                raise bad(name, at, "keys", ", ".join(record), f"a key of time ({TIMES})")
            column, unit_s = units[0]
            # Mooncake's, the one published format of JSON lines, is in milliseconds.
            unit_s = UNITS_S["_ms"] if normalised(column) == "timestamp" else unit_s
        value = record.get(column)
        if value is None or value == "":
            raise bad(name, at, column, "nothing", "a value on every line")
        yield moment(name, at, column, str(value).strip(), unit_s)
