"""Columns: what a name in a header, or a key, says of the values under it."""

from __future__ import annotations

import re
from decimal import Decimal

TIME_COLUMNS = (
    "timestamp", "arrival", "arrivals", "arrival_time", "arrival_timestamp", "arrived_at", "time",
    "datetime", "date", "ts", "t", "start_time", "start_timestamp", "request_time",
)  # fmt: skip
COUNT_COLUMNS = ("count", "counts", "requests", "request_count", "num_requests")

UNITS_S = {
    suffix: Decimal(unit_s)
    for suffix, unit_s in (
        ("_s", "1"), ("_sec", "1"), ("_seconds", "1"), ("_ms", "1e-3"), ("_us", "1e-6"),
        ("_ns", "1e-9"),
    )
}  # fmt: skip
TIMES = "one of " + ", ".join(TIME_COLUMNS) + " (in seconds, or ending in _s, _ms, _us, _ns)"
COUNTS = "one of " + ", ".join(COUNT_COLUMNS)


def normalised(column: str) -> str:
    """A column's name as `TIME_COLUMNS` and `COUNT_COLUMNS` spell theirs."""
    return re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")


def time_unit_s(column: str) -> Decimal | None:
    """Seconds in one unit of a column of time; None when it is not one."""
    normal = normalised(column)
    if normal in TIME_COLUMNS:
        return Decimal(1)
    for suffix, unit_s in UNITS_S.items():
        if normal.endswith(suffix) and normal.removesuffix(suffix) in TIME_COLUMNS:
            return unit_s
    return None
