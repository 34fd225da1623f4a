"""Processors: what turns text and pictures, as apps have them, into a network's inputs.

One file = one kind; the file's name is the card's `processor.kind`. To add one, put its record in
`router.processor`, and a file here that defines `open`:

    def open(record: MyProcessor, folder: Path, inputs: Mapping[str, TensorSpec]) -> Process: ...

A processor is data: its record, and the files of the artifact that the record names. A `Process` is
called on a thread beside the event loop, by several at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, cast

from gateway.engines import Tensor
from router.card import TensorSpec
from router.errors import InvalidRequest
from router.processor import Processor

# What a request's tensors may hold together once they are made, in bytes: as much as a client may
# send of them by default (`max_body_bytes`). One row is always allowed.
MOST_BYTES = 64 << 20


class Process(Protocol):
    """What makes the inputs."""

    def __call__(self, elements: Tensor, go_on: Callable[[], None], /) -> dict[str, Tensor]:
        """A BYTES tensor (rows,) to the inputs that it fills, by name, each (rows, ...).

        Args:
            go_on: called every few rows; raises where nobody waits for the rest any more.

        Raises:
            InvalidRequest: an element is none of what the processor reads, the tensors would hold
                more than `MOST_BYTES`, which is found before they do, or all elements together
                are more work than one request may ask for, which is found before any of it is
                done; it names the input.
        """


class ProcessorError(Exception):
    """A processor cannot be opened: its file is no such thing, or a package is missing."""


def check_size(name: str, rows: int, row_bytes: int) -> None:
    """Refuse more rows than may be made.

    Args:
        name: the input's that they come in.
        row_bytes: what a row takes in all tensors that are made of it.

    Raises:
        InvalidRequest: there are more.
    """
    most = max(1, MOST_BYTES // row_bytes)
    if rows > most:
        expected = f"at most {most} rows, for each becomes {row_bytes} bytes of tensors"
        raise InvalidRequest(f"inputs.{name}", f"{rows} rows", expected)


def check_work(
    name: str, rows: int, costs: Iterable[int], *, most: int, least: int, unit: str
) -> None:
    """Refuse more work than one request may ask for: a small body may stand for minutes of it.

    Args:
        name: the input's that the rows come in.
        costs: what each row costs, in `unit`; not read where the rows alone are too many.
        most: what all may cost together. One row is always allowed.
        least: what a row counts at least.

    Raises:
        InvalidRequest: it is more.
    """
    work = rows * least
    if work <= most:
        work = sum(max(cost, least) for cost in costs)
    if rows > 1 and work > most:
        expected = f"at most {most} {unit} together, of which each row counts at least {least}"
        raise InvalidRequest(f"inputs.{name}", f"{work} in {rows} rows", expected)


def names() -> list[str]:
    """The kinds of processor."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def open_one(record: Processor, folder: Path, inputs: Mapping[str, TensorSpec]) -> Process:
    """The processor of a card.

    Args:
        folder: the variant's, whose digests are checked.
        inputs: the card's, by name.

    Raises:
        ProcessorError: it cannot be opened; the message says why, and names the extra if it is a
            package that is missing.
    """
    module = importlib.import_module(f"{__name__}.{record.kind}")
    return cast(Process, module.open(record, folder, inputs))
