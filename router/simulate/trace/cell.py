"""One cell of a trace: a time or a number, or refused with its place."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from router.simulate.trace import bad

# Digits that a count may have: with more, sums of counts would not be exact as a float.
COUNT_DIGITS = 15
WHOLE = re.compile(rf"[+-]?[0-9]{{1,{COUNT_DIGITS}}}", re.ASCII)
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
# RFC 3339, also without the offset, the seconds or the time of day; fractions of up to 12 digits,
# where datetime keeps 6.
STAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(\.[0-9]{1,12})?"
    r"\s?([Zz]|UTC|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, and where it was read."""

    line: int
    field: str
    cell: str
    time_s: Decimal


def moment(name: str, line: int, field: str, cell: str, unit_s: Decimal) -> Moment:
    """The time in one cell, in s since any fixed instant: exact, for stamps have many digits."""
    stamp = STAMP.fullmatch(cell)
    if stamp:
        day, clock, fraction, offset = stamp.groups()
        zone = "+00:00" if offset in (None, "Z", "z", "UTC") else offset
        try:
            whole = datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone}") - _EPOCH
        except ValueError as error:
            raise bad(name, line, field, cell, f"a date and a time ({error})") from error
        seconds = Decimal(whole.days * 86_400 + whole.seconds)
        return Moment(line, field, cell, seconds + Decimal(fraction or 0))
    number = number_of(name, line, field, cell, "a number of seconds, or a date and a time")
    return Moment(line, field, cell, number * unit_s)


def number_of(name: str, line: int, field: str, cell: str, expected: str) -> Decimal:
    """The number in one cell: finite, and 0 or more."""
    if not cell:
        raise bad(name, line, field, "nothing", expected)
    if not NUMBER.fullmatch(cell) and not NOT_FINITE.fullmatch(cell):
        raise bad(name, line, field, cell, expected)
    if not math.isfinite(float(cell)):
        raise bad(name, line, field, cell, "a finite number")
    number = Decimal(cell)
    if number < 0:
        raise bad(name, line, field, cell, "0 or more")
    return number
