"""The format of a trace, told by its content: names and suffixes differ between mirrors of one data
set.

1.  gzip and bzip2 are known by their first bytes and undone; a tar must hold one file.
2.  A first line that starts with `{` makes it JSON lines: arrivals, by the first key that is one of
    `TIME_COLUMNS`. A number called `timestamp` is in milliseconds (Mooncake, arXiv 2407.00079).
3.  A first line whose first cell is neither a number nor a date is a header. A column
    of `COUNT_COLUMNS` makes it counts, one of `TIME_COLUMNS` arrivals (Azure LLM inference, Patel
    et al. 2024), both together counts in bins as long as the steps of time. Other columns are not
    looked at; without either there is nothing to go by, and it is refused.
4.  Without a header, numbers side by side with spaces between, or with commas on the only line, are
    a list. Otherwise each line is a row, whose first cell is an arrival.
5.  A list of whole numbers is counts. So is one number on each line where all are whole and they
    fall somewhere or never change, for time does not fall and an instant has no rate. All else is
    arrivals: numbers with a point, and whole numbers that rise.

Numbers that are arrivals are seconds unless the column says otherwise (`_ms`, `_us`, `_ns`); counts
are per second unless the caller or a column of time says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Literal, get_args

from router.simulate.trace import Trace, bad
from router.simulate.trace.cell import STAMP, WHOLE, Moment, moment
from router.simulate.trace.columns import COUNT_COLUMNS, COUNTS, TIMES, normalised, time_unit_s
from router.simulate.trace.json_lines import json_lines
from router.simulate.trace.rows import Row, is_header, rows_of
from router.simulate.trace.series import counts_of, instants, step_s
from router.simulate.trace.text import text_of

Format = Literal["auto", "arrivals", "counts", "tokens"]

_ENOUGH = "at least two arrivals, or counts"


def parse(
    name: str, data: bytes | str, *, format: Format = "auto", bin_s: float | None = None
) -> Trace:
    """The trace in `data`, its format told by content as the module says.

    Args:
        name: what messages call it.
        format: `auto`; `arrivals` or `counts` for what the numbers are, where content leaves it
            open; `tokens` for a log with a row for each request, its time among other columns.
        bin_s: length of a bin of counts, s; None for what a column of time says, or 1.

    Raises:
        BadTrace: it cannot be read, is not of that format, runs backwards, holds a value that is
            missing, negative or no finite number, or too little for a rate.
    """
    if format not in get_args(Format):
        raise bad(name, None, "format", format, "one of " + ", ".join(get_args(Format)))
    if bin_s is not None and not 0 < bin_s < math.inf:
        raise bad(name, None, "bin_s", bin_s, "a positive number of seconds")
    text = data.removeprefix("\ufeff") if isinstance(data, str) else text_of(name, data)
    if not (opening := text.lstrip()):
        raise bad(name, None, "content", "nothing", _ENOUGH)
    if opening.startswith("{"):
        if format == "counts":
            raise bad(name, 1, "format", "JSON lines", "counts, as format says")
        return instants(name, json_lines(name, text))
    rows, delimited = rows_of(name, text)
    if not rows:
        raise bad(name, None, "content", "nothing but delimiters", _ENOUGH)
    if is_header(rows[0]):
        return _with_header(name, rows, format, bin_s)
    return _bare(name, rows, delimited, format, 1.0 if bin_s is None else bin_s)


def _with_header(name: str, rows: list[Row], format: Format, bin_s: float | None) -> Trace:
    header, *body = rows
    columns = header.cells
    units = [(at, unit) for at, column in enumerate(columns) if (unit := time_unit_s(column))]
    counted = [at for at, column in enumerate(columns) if normalised(column) in COUNT_COLUMNS]
    # One column is what the caller says it is, whatever its name.
    if len(columns) == 1 and format == "counts":
        counted = [0]
    if len(columns) == 1 and format == "arrivals" and not units:
        units = [(0, Decimal(1))]
    if counted and format in ("auto", "counts"):
        if bin_s is None and units and len(body) > 1:
            bin_s = step_s(name, _moments(name, columns, body, *units[0]))
        cells = [Row(row.line, [_cell(name, columns, row, counted[0])]) for row in body]
        return counts_of(name, cells, columns[counted[0]], 1.0 if bin_s is None else bin_s)
    if units and format != "counts":
        return instants(name, _moments(name, columns, body, *units[0]))
    expected = {
        "counts": f"a column of counts ({COUNTS})",
        "auto": f"a column of time ({TIMES}) or of counts ({COUNTS})",
    }.get(format, f"a column of time ({TIMES})")
    raise bad(name, header.line, "header", ",".join(columns), expected)


def _cell(name: str, columns: list[str], row: Row, at: int) -> str:
    cell = row.cells[at] if at < len(row.cells) else ""
    if not cell:
        raise bad(name, row.line, columns[at], "nothing", "a value in every row")
    return cell


def _moments(
    name: str, columns: list[str], body: list[Row], at: int, unit_s: Decimal
) -> Iterator[Moment]:
    for row in body:
        yield moment(name, row.line, columns[at], _cell(name, columns, row, at), unit_s)


def _bare(name: str, rows: list[Row], delimited: bool, format: Format, bin_s: float) -> Trace:
    """Rows without a header: a list, or an arrival at the start of each row."""
    if format == "tokens":
        shown = ",".join(rows[0].cells)
        expected = f"a header with a column of time ({TIMES}), or JSON lines"
        raise bad(name, rows[0].line, "header", shown, expected)
    # Delimiters make columns, unless there is one row and so nothing to make them of.
    if delimited and (len(rows) > 1 or STAMP.fullmatch(rows[0].cells[0])):
        several = any(any(row.cells[1:]) for row in rows)
        rows = [Row(row.line, row.cells[:1]) for row in rows]
    else:
        several = False
    if format == "counts" or (format == "auto" and not several and _are_counts(rows)):
        return counts_of(name, rows, "count", bin_s)
    moments = (
        moment(name, row.line, "arrival", cell, Decimal(1)) for row in rows for cell in row.cells
    )
    return instants(name, moments, "" if format == "arrivals" else ", unless format is counts")


def _are_counts(rows: list[Row]) -> bool:
    cells = [cell for row in rows for cell in row.cells]
    if len(cells) < 2 or not all(map(WHOLE.fullmatch, cells)):
        return False
    if len(cells) > len(rows):
        return True
    numbers = list(map(int, cells))
    return numbers[0] == numbers[-1] or any(later < sooner for sooner, later in pairwise(numbers))
