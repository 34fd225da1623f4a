"""Hosts: where the programs of one lane live. One file = one kind; its name is its public name.

To add one, put a file here that defines `open`:

    def open(lane: int) -> Host: ...

A lane is a thread that runs one batch at a time, whatever its kind: a host loads programs for it
and the thread calls them. One lives in this process, the other in a process of the lane's own.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from gateway.engines import EngineError, Program
from router.card import VariantCard


class LaneLost(EngineError):
    """The lane's process ended, so the batch has no answer and had no effect: it may run again."""


class Host(Protocol):
    """Where one lane's programs live. Used by one thread at a time."""

    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> Program:
        """As `engines.Engine.load`, with the engine that `card` names.

        Raises:
            EngineError: it cannot be loaded.
        """
        ...

    def close(self) -> None:
        """Free everything. Calling it twice does nothing."""
        ...


def names() -> list[str]:
    """The kinds of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def open_one(kind: str, lane: int) -> Host:
    """A host of `kind` for the lane of that number.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in names():
        raise ValueError(f"unknown kind of lane {kind!r}; there are {', '.join(names())}")
    return cast(Host, importlib.import_module(f"{__name__}.{kind}").open(lane))
