"""A worker: one of several processes that serve the same port, as it sees itself.

What a worker is told comes over a socket that only its supervisor (`gateway.processes.workers`) has
the other end of, as lines of JSON: first an `Order`, later that it may open the port. It says back
that it listens for this, that it has settled, and that the others are to read their settings again.
When the supervisor ends, however it does, so does the socket, and the worker drains as if it had
been told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

_STDIN, _STDOUT = 0, 1
_POLL_S = 0.02
OPEN = b"open\n"


class Order(BaseModel):
    """What a worker is started with.

    Attributes:
        number: its own, from 0 on.
        count: how many workers there are.
        restarts: how often its place was filled again.
        folder: where the workers' sockets lie, which nobody else may enter.
        options: the settings of the command line, and those that the supervisor decided.
        config: the file of settings, if one was named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    count: int
    restarts: int
    folder: Path
    options: dict[str, Any]
    config: Path | None
    log_level: str


class Place:
    """A worker's place among the others.

    Args:
        link: the socket to the supervisor.
    """

    def __init__(self, order: Order, link: socket.socket) -> None:
        self.order = order
        self._link = link
        self._may_open = threading.Event()
        self._forsaken = False

    @classmethod
    def taken(cls) -> Self:
        """The place that this process was started for: its standard input is the link.

        Raises:
            EOFError: the supervisor has ended.
        """
        link = socket.socket(fileno=os.dup(_STDIN))
        # What this process starts must not keep the link open when it has ended itself.
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, _STDIN)
        os.close(nothing)
        heard = link.makefile("rb")
        line = heard.readline()
        if not line:
            raise EOFError("the supervisor has ended")
        place = cls(Order.model_validate_json(line), link)
        listening = threading.Thread(
            target=place._hear, args=(heard.readline,), name="supervisor", daemon=True
        )
        listening.start()
        return place

    def listening(self) -> None:
        """Say that nothing kept this worker from starting."""
        self._say(listening=True)

    def settled(self, ready: bool) -> None:
        """Say that every variant is loaded, or has failed, and whether every model is served."""
        self._say(settled=True, ready=ready)

    def reload_others(self) -> int:
        """Have the other workers read their settings again; how many there are."""
        self._say(reload=True)
        return self.order.count - 1

    async def may_open(self, ending: Callable[[], bool]) -> None:
        """Return when the port may be opened, or when `ending()`."""
        while not (self._may_open.is_set() or ending()):
            await asyncio.sleep(_POLL_S)

    def socket_of(self, number: int) -> Path:
        """Where the worker of that number tells the others its metrics."""
        return self.order.folder / f"{number}.sock"

    def leave(self) -> None:
        """This worker has ended. The last one clears up after a supervisor that was killed."""
        if self._forsaken:
            with contextlib.suppress(OSError):  # others are still there, or were first
                self.order.folder.rmdir()

    def _say(self, **event: bool) -> None:
        # Where the supervisor has ended, `_hear` notices.
        with contextlib.suppress(OSError):
            self._link.sendall(json.dumps(event).encode() + b"\n")

    def _hear(self, readline: Callable[[], bytes]) -> None:
        with contextlib.suppress(OSError):
            while line := readline():
                if line == OPEN:
                    self._may_open.set()
        self._forsaken = True
        # Nobody reads what is said any more, and saying it would raise.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, _STDOUT)
        os.close(nothing)
        os.kill(os.getpid(), signal.SIGTERM)
