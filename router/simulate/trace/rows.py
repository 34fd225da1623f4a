"""Rows: text, cut into lines that hold something and these into cells."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from router.simulate.trace import bad
from router.simulate.trace.cell import NOT_FINITE, NUMBER, STAMP


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a line."""

    line: int
    cells: list[str]


def rows_of(name: str, text: str) -> tuple[list[Row], bool]:
    """The lines that hold something, cut into cells, and whether a delimiter cuts them."""
    first = text.lstrip().split("\n", 1)[0].strip()
    delimiter = next((mark for mark in ",;\t" if mark in first), None)
    if delimiter is None or (delimiter == "\t" and NUMBER.fullmatch(first.split("\t")[0])):
        return _by_spaces(text), False
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return rows, True
        except csv.Error as error:
            raise bad(name, line, "row", str(error), f"values cut by {delimiter!r}") from error
        if any(cells):
            rows.append(Row(line, cells))


def _by_spaces(text: str) -> list[Row]:
    rows = []
    for at, line in enumerate(io.StringIO(text, newline=None), 1):
        if words := line.split():
            # Only numbers stand side by side: a time of day and a column's name may hold a space.
            rows.append(Row(at, words if NUMBER.fullmatch(words[0]) else [line.strip()]))
    return rows


def is_header(row: Row) -> bool:
    """Whether a first row names columns, being neither a number nor a date."""
    # An index column has no name, so the first cell that is not empty decides.
    cell = next(filter(None, row.cells))
    return not (NUMBER.fullmatch(cell) or NOT_FINITE.fullmatch(cell) or STAMP.fullmatch(cell))
