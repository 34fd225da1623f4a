"""Programs in this process: nothing is copied, and an engine that crashes takes the server along.

Engines let go of the interpreter's lock while they compute, so lanes run side by side all the same.
"""

from __future__ import annotations

from pathlib import Path

from gateway import engines
from gateway.engines import Program
from gateway.hosts import Host
from router.card import VariantCard


class _InProcess:
    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> Program:
        engine = engines.get(card.engine.name)
        return engine.load(folder, card, threads=threads, trusted=trusted)

    def close(self) -> None:
        """Programs are closed by whoever loaded them; there is nothing else."""


def open(lane: int) -> Host:
    """A host for the lane of that number."""
    del lane
    return _InProcess()
