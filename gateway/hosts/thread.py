"""Programs in this process: nothing is copied, and an engine that crashes takes the server along.

Engines let go of the interpreter's lock while they compute, so lanes run side by side all the same.
An engine that hangs cannot be stopped: its call is left behind with the thread that made it, and
its program is loaded anew, beside what the lane does meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway import engines
from gateway.engines import EngineError, Program, Tensor, Tensors
from gateway.hosts import Host
from router.card import VariantCard

_LOG = logging.getLogger(__name__)


class _Program:
    """An engine's program; another of the same files may take its place."""

    def __init__(
        self,
        folder: Path,
        card: VariantCard,
        threads: int,
        trusted: bool,
        verify: Callable[[], None],
    ) -> None:
        self._how = folder, card, threads, trusted
        self._verify = verify
        self._absent = ""
        self._inner: Program | None = self._loaded()

    def _loaded(self) -> Program:
        folder, card, threads, trusted = self._how
        engine = engines.get(card.engine.name)
        return engine.load(folder, card, threads=threads, trusted=trusted)

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        inner = self._inner
        if inner is None:
            raise EngineError(self._absent)
        return inner.infer(inputs)

    def kernels(self) -> dict[str, int]:
        return {} if self._inner is None else self._inner.kernels()

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()

    def replace(self) -> None:
        """Load it anew, on a thread of its own: what hung once may hang again."""
        self._absent = "it did not come back, and is being loaded again"
        self._inner = None
        threading.Thread(target=self._replace, name="reload", daemon=True).start()

    def _replace(self) -> None:
        card = self._how[1]
        try:
            self._verify()
            inner = self._loaded()
            try:
                self._verify()
            except EngineError:
                inner.close()
                raise
            self._inner = inner
        except Exception as error:  # engines have no common base for what they raise
            self._absent = f"it cannot be loaded again: {error}"
            _LOG.error("%s/%s cannot be loaded again: %s", card.model, card.variant, error)


class _InProcess:
    def load(
        self,
        folder: Path,
        card: VariantCard,
        *,
        threads: int,
        trusted: bool,
        verify: Callable[[], None] = lambda: None,
    ) -> Program:
        return _Program(folder, card, threads, trusted, verify)

    def give_up(self, program: Program | None) -> None:
        """Nothing ends a thread: it keeps the old program until it returns by itself."""
        if isinstance(program, _Program):
            program.replace()

    def restore(self) -> Sequence[tuple[Program, VariantCard]]:
        """The other programs were not used by what hangs."""
        return ()

    def close(self) -> None:
        """Programs are closed by whoever loaded them; there is nothing else."""


def open(lane: int) -> Host:
    """A host for the lane of that number."""
    del lane
    return _InProcess()
