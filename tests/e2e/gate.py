"""Batches that a test holds: it need not be quicker than they are, however busy the machine is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Gate:
    """Before the runs of the variants that are written with `echo=gate.echo`; open at first.

    Args:
        folder: outside the store, for the file that they look at.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "gate"

    @property
    def echo(self) -> dict[str, Any]:
        """For `write_variant`."""
        return {"fault_file": str(self._file)}

    @contextmanager
    def shut(self) -> Iterator[None]:
        """What begins to run meanwhile does not end before the block does."""
        self._say("hang")
        try:
            yield
        finally:
            self.open()

    def open(self) -> None:
        """Let go of everything."""
        self._file.unlink(missing_ok=True)

    def next(self) -> None:
        """Let go of what runs, and hold what runs next: rows that begin with 0, as the tests'."""
        self._say("hang 0")

    def _say(self, fault: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(fault, encoding="ascii")
        new.replace(self._file)
