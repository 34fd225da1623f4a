"""Programs in this process: nothing is copied, and an engine that crashes takes the server along.

Engines let go of the interpreter's lock while they compute, so lanes run side by side all the same.
An engine that hangs cannot be stopped: its call is left behind with the thread that made it, and
its program is loaded anew for the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway import engines
from gateway.engines import EngineError, Program, Tensor, Tensors
from gateway.hosts import Host
from router.card import VariantCard


class _Program:
    """An engine's program; another of the same files may take its place."""

    def __init__(self, folder: Path, card: VariantCard, threads: int, trusted: bool) -> None:
        self.card = card
        self._how = folder, threads, trusted
        self.load()

    def load(self) -> None:
        folder, threads, trusted = self._how
        engine = engines.get(self.card.engine.name)
        self._inner = engine.load(folder, self.card, threads=threads, trusted=trusted)

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        return self._inner.infer(inputs)

    def kernels(self) -> dict[str, int]:
        return self._inner.kernels()

    def close(self) -> None:
        self._inner.close()


class _InProcess:
    def __init__(self) -> None:
        self._left: list[_Program] = []

    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> Program:
        return _Program(folder, card, threads, trusted)

    def give_up(self, program: Program | None) -> None:
        """Nothing ends a thread: it keeps the old program until it returns by itself."""
        if isinstance(program, _Program):
            self._left.append(program)

    def restore(self) -> Sequence[tuple[Program, VariantCard]]:
        restored = []
        while self._left:
            program = self._left[-1]
            try:
                program.load()
            except Exception as error:  # engines have no common base for what they raise
                raise EngineError(
                    f"{program.card.model}/{program.card.variant}: {error}"
                ) from error
            restored.append((program, program.card))
            self._left.pop()
        return restored

    def close(self) -> None:
        """Programs are closed by whoever loaded them; there is nothing else."""


def open(lane: int) -> Host:
    """A host for the lane of that number."""
    del lane
    return _InProcess()
