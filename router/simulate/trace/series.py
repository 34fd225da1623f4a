"""Values in order, made a trace; refused where time runs backwards or too little is left."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise

from router.simulate.trace import Counts, Instants, bad
from router.simulate.trace.cell import COUNT_DIGITS, Moment, number_of
from router.simulate.trace.rows import Row


def instants(name: str, moments: Iterator[Moment], hint: str = "") -> Instants:
    """Arrivals at these moments, from the first on; `hint` is what to say where time falls."""
    times: list[float] = []
    first = last = None
    for moment in moments:
        if first is None or last is None:
            first = moment
        elif moment.time_s < last.time_s:
            expected = f"no time before {last.cell} of line {last.line}{hint}"
            raise bad(name, moment.line, moment.field, moment.cell, expected)
        last = moment
        times.append(float(moment.time_s - first.time_s))
    if not times or times[-1] == 0:
        shown = f"{len(times)} at one instant" if times else "none"
        expected = "arrivals at two instants at least, for one has no rate"
        raise bad(name, None, "arrivals", shown, expected)
    return Instants(name, tuple(times))


def counts_of(name: str, rows: list[Row], field: str, bin_s: float) -> Counts:
    """Counts in the cells of `rows`, in order."""
    expected = f"a whole number of requests, 0 or more, of {COUNT_DIGITS} digits at most"
    counts: list[int] = []
    for row in rows:
        # Millions of counts may stand on one line: those that are plain are not looked at singly.
        joined = "".join(row.cells)
        lengths = set(map(len, row.cells))
        plain = joined.isascii() and joined.isdigit()
        if plain and min(lengths) > 0 and max(lengths) <= COUNT_DIGITS:
            counts.extend(map(int, row.cells))
            continue
        for at, cell in enumerate(row.cells, 1):
            named = field if len(row.cells) == 1 else f"{field} {at}"
            number = number_of(name, row.line, named, cell, expected)
            if number >= 10**COUNT_DIGITS or number != int(number):
                raise bad(name, row.line, named, cell, expected)
            counts.append(int(number))
    if not any(counts):
        shown = f"{len(counts)} zeros" if counts else "none"
        raise bad(name, None, field, shown, "counts with at least one above 0")
    return Counts(name, tuple(counts), bin_s)


def step_s(name: str, moments: Iterator[Moment]) -> float:
    """The length of a bin, s, by the times at which bins begin."""
    step: Decimal | None = None
    for sooner, later in pairwise(moments):
        found = later.time_s - sooner.time_s
        step = found if step is None else step
        # Times as floats were printed with as few digits as a millionth of a bin needs.
        if found <= 0 or abs(found - step) > step / 10**6:
            expected = f"a bin {'later' if found is step else f'{step} s later'} than {sooner.cell}"
            raise bad(name, later.line, later.field, later.cell, expected)
    return 1.0 if step is None else float(step)
