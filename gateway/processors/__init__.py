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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, cast

from gateway.engines import Tensor
from router.card import TensorSpec
from router.processor import Processor


class Process(Protocol):
    """What makes the inputs."""

    def __call__(self, elements: Tensor, go_on: Callable[[], None], /) -> dict[str, Tensor]:
        """A BYTES tensor (rows,) to the inputs that it fills, by name, each (rows, ...).

        Args:
            go_on: called every few rows; raises where nobody waits for the rest any more.

        Raises:
            InvalidRequest: an element is none of what the processor reads; it names the input.
        """


class ProcessorError(Exception):
    """A processor cannot be opened: its file is no such thing, or a package is missing."""


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
