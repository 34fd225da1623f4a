"""Hosts: where the programs of one lane live. One file = one kind; its name is its public name.

To add one, put a file here that defines `open`:

    def open(lane: int) -> Host: ...

A lane is a thread that runs one batch at a time, whatever its kind: a host loads programs for it
and the thread calls them. One lives in this process, the other in a process of the lane's own.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from gateway.engines import EngineError, Program
from router.card import VariantCard

_LANE = threading.local()


def serve_lane() -> None:
    """The calling thread runs a lane's batches, which do not wait for what is being loaded."""
    _LANE.serves = True


def serves_lane() -> bool:
    """Whether the calling thread runs a lane's batches; others load and warm up."""
    return getattr(_LANE, "serves", False)


class LaneLost(EngineError):
    """The lane's process ended, so the batch has no answer and had no effect: it may run again."""


class Host(Protocol):
    """Where one lane's programs live. Used by one thread at a time."""

    def load(
        self,
        folder: Path,
        card: VariantCard,
        *,
        threads: int,
        trusted: bool,
        verify: Callable[[], None] = lambda: None,
    ) -> Program:
        """As `engines.Engine.load`, with the engine that `card` names.

        Args:
            verify: raises EngineError where `folder` does not hold what it held. Called before and
                after the program is loaded anew, by itself, later; not now.

        Raises:
            EngineError: it cannot be loaded.
        """
        ...

    def give_up(self, program: Program | None) -> None:
        """A call of `program`, or of `restore`, has not returned for too long: end it, or leave it
        behind.

        Called by another thread than the one that waits for it.
        """
        ...

    def restore(self) -> Sequence[tuple[Program, VariantCard]]:
        """Make every program usable again, after `LaneLost` or `give_up`; blocks.

        Returns:
            Those that were loaded anew, which are to be warmed up.

        Raises:
            EngineError: one of them cannot be loaded now.
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
