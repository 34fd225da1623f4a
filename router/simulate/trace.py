"""Traces: recorded arrivals, read from the formats in which they are published, and replayed.

What is recorded is either every request's arrival (`Instants`) or how many came in each bin of time
(`Counts`). `parse` tells the formats apart by content, since names and suffixes differ between
mirrors of one data set:

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

import bz2
import csv
import gzip
import io
import json
import math
import random
import re
import tarfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Literal, get_args

from router.errors import GearshiftError

Format = Literal["auto", "arrivals", "counts", "tokens"]

TIME_COLUMNS = (
    "timestamp", "arrival", "arrivals", "arrival_time", "arrival_timestamp", "arrived_at", "time",
    "datetime", "date", "ts", "t", "start_time", "start_timestamp", "request_time",
)  # fmt: skip
COUNT_COLUMNS = ("count", "counts", "requests", "request_count", "num_requests")

# Zero bins in a row, at most, that are silence; more are a gap in the recording.
LONGEST_SILENCE = 5
# Bins of a window, at least: fewer show no change of rate.
LEAST_BINS = 30
# Beyond any service, and within what float arithmetic on times can bear.
LEAST_RATE_PER_S, MOST_RATE_PER_S = 1e-6, 1e9

_UNITS_S = {
    suffix: Decimal(unit_s)
    for suffix, unit_s in (
        ("_s", "1"), ("_sec", "1"), ("_seconds", "1"), ("_ms", "1e-3"), ("_us", "1e-6"),
        ("_ns", "1e-9"),
    )
}  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENOUGH = "at least two arrivals, or counts"
_TIMES = "one of " + ", ".join(TIME_COLUMNS) + " (in seconds, or ending in _s, _ms, _us, _ns)"
_COUNTS = "one of " + ", ".join(COUNT_COLUMNS)
# Digits that a count may have: with more, sums of counts would not be exact as a float.
_COUNT_DIGITS = 15
_WHOLE = re.compile(rf"[+-]?[0-9]{{1,{_COUNT_DIGITS}}}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
# RFC 3339, also without the offset, the seconds or the time of day; fractions of up to 12 digits,
# where datetime keeps 6.
_STAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(\.[0-9]{1,12})?"
    r"\s?([Zz]|UTC|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.ASCII,
)


class BadTrace(GearshiftError):
    """A trace, or the spec of a process, that cannot be replayed.

    Names the trace, the line and the field, and says what came and what was expected.
    """

    code = "bad-trace"
    title = "Invalid trace"


@dataclass(frozen=True, slots=True)
class Instants:
    """Every request's arrival.

    Attributes:
        times: s, non-decreasing, the first 0 and the last above 0.
    """

    name: str
    times: tuple[float, ...]

    @property
    def rate_per_s(self) -> float:
        """Mean rate as recorded."""
        return (len(self.times) - 1) / self.times[-1]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many requests came in each bin of time.

    Attributes:
        counts: requests by bin; at least one is not 0.
        bin_s: length of a bin, s.
        stretches: (first, end) of the bins between gaps in the recording, which are more than
            `LONGEST_SILENCE` zeros in a row.
    """

    name: str
    counts: tuple[int, ...]
    bin_s: float = 1.0
    stretches: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stretches", _stretches(self.counts))

    @property
    def rate_per_s(self) -> float:
        """Mean rate as recorded, gaps left out."""
        bins = sum(end - first for first, end in self.stretches)
        return sum(self.counts) / (bins * self.bin_s)


Trace = Instants | Counts


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
        raise _bad(name, None, "format", format, "one of " + ", ".join(get_args(Format)))
    if bin_s is not None and not 0 < bin_s < math.inf:
        raise _bad(name, None, "bin_s", bin_s, "a positive number of seconds")
    text = data.removeprefix("\ufeff") if isinstance(data, str) else _text(name, data)
    if not (opening := text.lstrip()):
        raise _bad(name, None, "content", "nothing", _ENOUGH)
    if opening.startswith("{"):
        if format == "counts":
            raise _bad(name, 1, "format", "JSON lines", "counts, as format says")
        return _instants(name, _json_lines(name, text))
    rows, delimited = _rows(name, text)
    if not rows:
        raise _bad(name, None, "content", "nothing but delimiters", _ENOUGH)
    if _is_header(rows[0]):
        return _with_header(name, rows, format, bin_s)
    return _bare(name, rows, delimited, format, 1.0 if bin_s is None else bin_s)


def arrivals(trace: Trace, *, rate_per_s: float, requests: int, rng: random.Random) -> list[float]:
    """A window of `trace`, drawn by `rng` and brought to a mean rate.

    Of `Instants`, `requests` consecutive arrivals, or the whole trace where that is shorter, with
    the time axis stretched: what came together still comes together, and bursts are as long, in
    requests, as they were. Of `Counts`, as many bins as `requests` take at this rate, `LEAST_BINS`
    at least, or the longest stretch without a gap where that is shorter, with the counts scaled:
    seconds stay seconds. Within a bin arrivals are a Poisson process, by the inverse of the
    cumulative rate (Çinlar 1975, Introduction to Stochastic Processes, 4.7), so that how many come
    is random. No window touches a gap in the recording, and none wraps around.

    Args:
        rate_per_s: mean rate of the window, requests per s.
        requests: how many to replay; 1 or more.

    Returns:
        Arrivals in s, non-decreasing. Of `Instants` the first is 0; of `Counts` the window begins
        at 0, and there may be none when few are expected.

    Raises:
        BadTrace: a rate or a number of requests out of its domain, or counts with no stretch of
            `LEAST_BINS` bins between gaps.
    """
    demand(trace.name, rate_per_s, requests)
    if isinstance(trace, Instants):
        return _window_of_instants(trace, rate_per_s, requests, rng)
    return _window_of_counts(trace, rate_per_s, requests, rng)


def demand(name: str, rate_per_s: float, requests: int) -> None:
    """Refuses a rate or a number of requests that nothing can be drawn for.

    Raises:
        BadTrace: the rate is not between `LEAST_RATE_PER_S` and `MOST_RATE_PER_S`, or no request
            is asked for.
    """
    if not LEAST_RATE_PER_S <= rate_per_s <= MOST_RATE_PER_S:
        expected = f"requests per second from {LEAST_RATE_PER_S:g} to {MOST_RATE_PER_S:g}"
        raise _bad(name, None, "rate_per_s", rate_per_s, expected)
    if requests < 1:
        raise _bad(name, None, "requests", requests, "1 or more")


def _window_of_instants(
    trace: Instants, rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    times = trace.times
    size = min(requests, len(times))
    if size == 1:
        return [0.0]
    # A window whose arrivals all came at once has no rate to scale; at least one window has.
    starts = [
        first for first in range(len(times) - size + 1) if times[first + size - 1] > times[first]
    ]
    first = rng.choice(starts)
    begin, span = times[first], times[first + size - 1] - times[first]
    length_s = (size - 1) / rate_per_s
    # Divided first: a span may be too short for a scale that a float can hold.
    return [(time - begin) / span * length_s for time in times[first : first + size]]


def _window_of_counts(
    trace: Counts, rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    longest = max((end - first for first, end in trace.stretches), default=0)
    if longest < LEAST_BINS:
        raise _bad(
            trace.name,
            None,
            "counts",
            f"{longest} bins",
            f"at least {LEAST_BINS} bins without more than {LONGEST_SILENCE} zeros in a row",
        )
    wanted = requests / rate_per_s / trace.bin_s
    size = longest if wanted >= longest else max(LEAST_BINS, math.ceil(wanted))
    first = _start(trace.stretches, size, rng)
    expected = rate_per_s * size * trace.bin_s
    window = trace.counts[first : first + size]
    total = sum(window)
    reached = [0, *accumulate(window)]
    found: list[float] = []
    # A Poisson process of rate 1 on the axis of arrivals expected, carried back to time.
    at = rng.expovariate(1.0)
    while at < expected:
        level = at / expected * total
        index = min(bisect_right(reached, level) - 1, size - 1)
        share = (level - reached[index]) / window[index] if window[index] else 0.0
        found.append((index + min(share, 1.0)) * trace.bin_s)
        at += rng.expovariate(1.0)
    return found


def _start(stretches: Sequence[tuple[int, int]], size: int, rng: random.Random) -> int:
    """The first bin of a window of `size` bins inside a stretch, each such window as likely."""
    fitting = [(first, end - first - size + 1) for first, end in stretches if end - first >= size]
    drawn = rng.randrange(sum(starts for _, starts in fitting))
    for first, starts in fitting:
        if drawn < starts:
            return first + drawn
        drawn -= starts
    raise AssertionError("the draw is below the sum")


def _stretches(counts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    first = zeros = 0
    for index, count in enumerate(counts):
        if count == 0:
            zeros += 1
            continue
        if zeros > LONGEST_SILENCE:
            if index - zeros > first:
                found.append((first, index - zeros))
            first = index
        zeros = 0
    end = len(counts) - (zeros if zeros > LONGEST_SILENCE else 0)
    if end > first:
        found.append((first, end))
    return tuple(found)


# Reading: bytes to text, text to rows, rows to values.


def _text(name: str, data: bytes) -> str:
    data = _expanded(name, data)
    # A tar's header ends its fields with zero bytes; text has none.
    if b"\0" in data[:512]:
        data = _expanded(name, _member(name, data))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _bad(
            name,
            line,
            "content",
            f"byte 0x{data[error.start]:02x}",
            "text in UTF-8, plain or by gzip or bzip2",
        ) from error


def _expanded(name: str, data: bytes) -> bytes:
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"BZh"):
            return bz2.decompress(data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _bad(name, None, "archive", str(error), "whole gzip or bzip2 data") from error
    return data


def _member(name: str, data: bytes) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            # macOS puts a `._` file with attributes beside each one.
            files = [
                member
                for member in archive.getmembers()
                if member.isfile() and not member.name.rpartition("/")[2].startswith("._")
            ]
            content = archive.extractfile(files[0]) if len(files) == 1 else None
            if content is None:
                shown = ", ".join(member.name for member in files[:5]) or "none"
                raise _bad(name, None, "archive", f"files {shown}", "exactly one file")
            return content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _bad(
            name, None, "archive", str(error), "text, or a tar of one text file; gzip or bzip2"
        ) from error


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class _Moment:
    line: int
    field: str
    cell: str
    time_s: Decimal


def _rows(name: str, text: str) -> tuple[list[_Row], bool]:
    """The lines that hold something, cut into cells, and whether a delimiter cuts them."""
    first = text.lstrip().split("\n", 1)[0].strip()
    delimiter = next((mark for mark in ",;\t" if mark in first), None)
    if delimiter is None or (delimiter == "\t" and _NUMBER.fullmatch(first.split("\t")[0])):
        return _by_spaces(text), False
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[_Row] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return rows, True
        except csv.Error as error:
            raise _bad(name, line, "row", str(error), f"values cut by {delimiter!r}") from error
        if any(cells):
            rows.append(_Row(line, cells))


def _by_spaces(text: str) -> list[_Row]:
    rows = []
    for at, line in enumerate(io.StringIO(text, newline=None), 1):
        if words := line.split():
            # Only numbers stand side by side: a time of day and a column's name may hold a space.
            rows.append(_Row(at, words if _NUMBER.fullmatch(words[0]) else [line.strip()]))
    return rows


def _is_header(row: _Row) -> bool:
    # An index column has no name, so the first cell that is not empty decides.
    cell = next(filter(None, row.cells))
    return not (_NUMBER.fullmatch(cell) or _NOT_FINITE.fullmatch(cell) or _STAMP.fullmatch(cell))


def _normal(column: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")


def _time_unit_s(column: str) -> Decimal | None:
    """Seconds in one unit of a column of time; None when it is not one."""
    normal = _normal(column)
    if normal in TIME_COLUMNS:
        return Decimal(1)
    for suffix, unit_s in _UNITS_S.items():
        if normal.endswith(suffix) and normal.removesuffix(suffix) in TIME_COLUMNS:
            return unit_s
    return None


def _with_header(name: str, rows: list[_Row], format: Format, bin_s: float | None) -> Trace:
    header, *body = rows
    columns = header.cells
    units = [(at, unit) for at, column in enumerate(columns) if (unit := _time_unit_s(column))]
    counted = [at for at, column in enumerate(columns) if _normal(column) in COUNT_COLUMNS]
    # One column is what the caller says it is, whatever its name.
    if len(columns) == 1 and format == "counts":
        counted = [0]
    if len(columns) == 1 and format == "arrivals" and not units:
        units = [(0, Decimal(1))]
    if counted and format in ("auto", "counts"):
        if bin_s is None and units and len(body) > 1:
            bin_s = _step_s(name, _moments(name, columns, body, *units[0]))
        cells = [_Row(row.line, [_cell(name, columns, row, counted[0])]) for row in body]
        return _counts(name, cells, columns[counted[0]], 1.0 if bin_s is None else bin_s)
    if units and format != "counts":
        return _instants(name, _moments(name, columns, body, *units[0]))
    expected = {
        "counts": f"a column of counts ({_COUNTS})",
        "auto": f"a column of time ({_TIMES}) or of counts ({_COUNTS})",
    }.get(format, f"a column of time ({_TIMES})")
    raise _bad(name, header.line, "header", ",".join(columns), expected)


def _cell(name: str, columns: list[str], row: _Row, at: int) -> str:
    cell = row.cells[at] if at < len(row.cells) else ""
    if not cell:
        raise _bad(name, row.line, columns[at], "nothing", "a value in every row")
    return cell


def _moments(
    name: str, columns: list[str], body: list[_Row], at: int, unit_s: Decimal
) -> Iterator[_Moment]:
    for row in body:
        yield _moment(name, row.line, columns[at], _cell(name, columns, row, at), unit_s)


def _bare(name: str, rows: list[_Row], delimited: bool, format: Format, bin_s: float) -> Trace:
    """Rows without a header: a list, or an arrival at the start of each row."""
    if format == "tokens":
        shown = ",".join(rows[0].cells)
        expected = f"a header with a column of time ({_TIMES}), or JSON lines"
        raise _bad(name, rows[0].line, "header", shown, expected)
    # Delimiters make columns, unless there is one row and so nothing to make them of.
    if delimited and (len(rows) > 1 or _STAMP.fullmatch(rows[0].cells[0])):
        several = any(any(row.cells[1:]) for row in rows)
        rows = [_Row(row.line, row.cells[:1]) for row in rows]
    else:
        several = False
    if format == "counts" or (format == "auto" and not several and _are_counts(rows)):
        return _counts(name, rows, "count", bin_s)
    moments = (
        _moment(name, row.line, "arrival", cell, Decimal(1)) for row in rows for cell in row.cells
    )
    return _instants(name, moments, "" if format == "arrivals" else ", unless format is counts")


def _are_counts(rows: list[_Row]) -> bool:
    cells = [cell for row in rows for cell in row.cells]
    if len(cells) < 2 or not all(map(_WHOLE.fullmatch, cells)):
        return False
    if len(cells) > len(rows):
        return True
    numbers = list(map(int, cells))
    return numbers[0] == numbers[-1] or any(later < sooner for sooner, later in pairwise(numbers))


def _json_lines(name: str, text: str) -> Iterator[_Moment]:
    column, unit_s = "", Decimal(1)
    for at, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_float=str, parse_int=str)
        except (ValueError, RecursionError) as error:
            expected = f"one JSON object on each line ({error})"
            raise _bad(name, at, "line", line.strip(), expected) from error
        if not isinstance(record, dict):
            raise _bad(name, at, "line", line.strip(), "one JSON object on each line")
        if not column:
            units = [(key, unit) for key in record if (unit := _time_unit_s(key))]
            if not units:
                raise _bad(name, at, "keys", ", ".join(record), f"a key of time ({_TIMES})")
            column, unit_s = units[0]
            # Mooncake's, the one published format of JSON lines, is in milliseconds.
            unit_s = _UNITS_S["_ms"] if _normal(column) == "timestamp" else unit_s
        value = record.get(column)
        if value is None or value == "":
            raise _bad(name, at, column, "nothing", "a value on every line")
        yield _moment(name, at, column, str(value).strip(), unit_s)


def _moment(name: str, line: int, field: str, cell: str, unit_s: Decimal) -> _Moment:
    """The time in one cell, in s since any fixed instant: exact, for stamps have many digits."""
    stamp = _STAMP.fullmatch(cell)
    if stamp:
        day, clock, fraction, offset = stamp.groups()
        zone = "+00:00" if offset in (None, "Z", "z", "UTC") else offset
        try:
            whole = datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone}") - _EPOCH
        except ValueError as error:
            raise _bad(name, line, field, cell, f"a date and a time ({error})") from error
        seconds = Decimal(whole.days * 86_400 + whole.seconds)
        return _Moment(line, field, cell, seconds + Decimal(fraction or 0))
    number = _number(name, line, field, cell, "a number of seconds, or a date and a time")
    return _Moment(line, field, cell, number * unit_s)


def _number(name: str, line: int, field: str, cell: str, expected: str) -> Decimal:
    if not cell:
        raise _bad(name, line, field, "nothing", expected)
    if not _NUMBER.fullmatch(cell) and not _NOT_FINITE.fullmatch(cell):
        raise _bad(name, line, field, cell, expected)
    if not math.isfinite(float(cell)):
        raise _bad(name, line, field, cell, "a finite number")
    number = Decimal(cell)
    if number < 0:
        raise _bad(name, line, field, cell, "0 or more")
    return number


def _instants(name: str, moments: Iterator[_Moment], hint: str = "") -> Instants:
    times: list[float] = []
    first = last = None
    for moment in moments:
        if first is None or last is None:
            first = moment
        elif moment.time_s < last.time_s:
            expected = f"no time before {last.cell} of line {last.line}{hint}"
            raise _bad(name, moment.line, moment.field, moment.cell, expected)
        last = moment
        times.append(float(moment.time_s - first.time_s))
    if not times or times[-1] == 0:
        shown = f"{len(times)} at one instant" if times else "none"
        expected = "arrivals at two instants at least, for one has no rate"
        raise _bad(name, None, "arrivals", shown, expected)
    return Instants(name, tuple(times))


def _counts(name: str, rows: list[_Row], field: str, bin_s: float) -> Counts:
    expected = f"a whole number of requests, 0 or more, of {_COUNT_DIGITS} digits at most"
    counts: list[int] = []
    for row in rows:
        # Millions of counts may stand on one line: those that are plain are not looked at singly.
        joined = "".join(row.cells)
        lengths = set(map(len, row.cells))
        plain = joined.isascii() and joined.isdigit()
        if plain and min(lengths) > 0 and max(lengths) <= _COUNT_DIGITS:
            counts.extend(map(int, row.cells))
            continue
        for at, cell in enumerate(row.cells, 1):
            named = field if len(row.cells) == 1 else f"{field} {at}"
            number = _number(name, row.line, named, cell, expected)
            if number >= 10**_COUNT_DIGITS or number != int(number):
                raise _bad(name, row.line, named, cell, expected)
            counts.append(int(number))
    if not any(counts):
        shown = f"{len(counts)} zeros" if counts else "none"
        raise _bad(name, None, field, shown, "counts with at least one above 0")
    return Counts(name, tuple(counts), bin_s)


def _step_s(name: str, moments: Iterator[_Moment]) -> float:
    """The length of a bin, s, by the times at which bins begin."""
    step: Decimal | None = None
    for sooner, later in pairwise(moments):
        found = later.time_s - sooner.time_s
        step = found if step is None else step
        # Times as floats were printed with as few digits as a millionth of a bin needs.
        if found <= 0 or abs(found - step) > step / 10**6:
            expected = f"a bin {'later' if found is step else f'{step} s later'} than {sooner.cell}"
            raise _bad(name, later.line, later.field, later.cell, expected)
    return 1.0 if step is None else float(step)


def _bad(name: str, line: int | None, field: str, received: object, expected: str) -> BadTrace:
    shown = received if isinstance(received, (int, float)) else str(received)[:200]
    place = name if line is None else f"{name}: line {line}"
    return BadTrace(
        f"{place}: {field}: expected {expected}, got {shown!r}",
        trace=name,
        line=line,
        field=field,
        received=str(shown),
        expected=expected,
    )
