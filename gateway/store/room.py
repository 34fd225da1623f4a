"""How much may be fetched: the bytes that a copy has room for, shared by those who fetch."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.store.remote import Stopped, TooMuch


class Room:
    """How many bytes more the copy may hold; asked by several threads."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._lock = threading.Lock()

    def check(self, size: int) -> None:
        """Raises where so many bytes do not fit.

        Raises:
            TooMuch: they do not.
        """
        if size > self._left:
            raise TooMuch(f"{size} bytes do not fit: the copy may hold {max(0, self._left)} more")

    def rented(self, stopped: threading.Event) -> _Rent:
        """Room for one variant, which is given back where it does not come to be."""
        return _Rent(self, stopped)

    def move(self, size: int) -> None:
        """Take so many bytes, or give them back."""
        with self._lock:
            if size > 0:
                self.check(size)
            self._left -= size


class _Rent:
    def __init__(self, room: Room, stopped: threading.Event) -> None:
        self._room = room
        self._stopped = stopped
        self._taken = 0

    def __enter__(self) -> Callable[[int], None]:
        return self._take

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._room.move(-self._taken)

    def _take(self, size: int) -> None:
        if self._stopped.is_set():
            raise Stopped
        self._room.move(size)
        self._taken += size
