"""A lease: a lane's hold on a build of a variant. Freeing the build waits for its leases.

The habit is TensorFlow Serving's `ServableHandle`: whoever uses a model keeps it alive.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.engines import Program
from router.card import VariantCard


class Loaded:
    """One build of a variant in memory.

    Attributes:
        card: the build's own, which another build of the same name need not share.
        programs: one for each lane.
        build: the digest of its manifest.
    """

    def __init__(self, card: VariantCard, programs: Sequence[Program], build: str = "") -> None:
        self.card = card
        self.build = build
        self.programs = tuple(programs)
        self._lock = threading.Lock()
        self._leases = 0
        self._closed = False

    @contextmanager
    def lease(self, lane: int) -> Iterator[Program]:
        """The program of `lane`, kept alive while it is used."""
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self.card.model}/{self.card.variant} was freed")
            self._leases += 1
        try:
            yield self.programs[lane]
        finally:
            with self._lock:
                self._leases -= 1

    def close(self) -> bool:
        """Free the programs, unless one is leased; whether they are free now."""
        with self._lock:
            if self._leases:
                return False
            closed, self._closed = self._closed, True
        if not closed:
            for program in self.programs:
                program.close()
        return True
