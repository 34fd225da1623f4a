"""Where lines go: standard error, or the end of a file that others may append to as well."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

_STDERR = 2
# What one write to a pipe holds without lines of other processes in the middle (pipe(7)).
_PIPE_BYTES = 4096
_MODE = 0o640


class Sink:
    """A file, or standard error. May be used by several threads.

    Args:
        path: None for standard error.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stale = False
        self._descriptor = _STDERR if path is None else _opened(path)
        self._is_pipe = stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)

    def reopen(self) -> None:
        """Open the file again, which was moved away; at the next line. A signal may ask for it."""
        self._stale = self._path is not None

    def write(self, lines: bytes) -> None:
        """Append whole lines.

        Raises:
            OSError: they cannot be written.
        """
        with self._lock:
            if self._stale and self._path is not None:
                self._stale = False
                # Where that fails, the file that is open is better than none.
                with contextlib.suppress(OSError):
                    fresh = _opened(self._path)
                    os.close(self._descriptor)
                    self._descriptor = fresh
            for piece in _pieces(lines) if self._is_pipe else (lines,):
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)


def _pieces(lines: bytes) -> Iterator[bytes]:
    """The same, cut between lines where that keeps a piece within what a pipe takes whole."""
    start = 0
    while len(lines) - start > _PIPE_BYTES:
        end = lines.rfind(b"\n", start, start + _PIPE_BYTES) + 1
        if end <= start:  # one long line
            end = lines.find(b"\n", start) + 1 or len(lines)
        yield lines[start:end]
        start = end
    yield lines[start:]
