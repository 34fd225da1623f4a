"""The end of the public port, in an order that loses nothing.

Told to end, the server is not ready any more, and serves on for a while all the same: who sends
requests to it (a balancer, a service's endpoints) takes a moment to learn that and turn elsewhere.
Each answer then says `Connection: close`, so that no connection is left over which a client would
send its next request just when it is closed. Only then the ports close, and what runs is finished.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from gateway.http.connections import Connection
from gateway.processes.ending import Ending

_POLL_S = 0.05


class Server(uvicorn.Server):
    """uvicorn's server, with such an end.

    Args:
        config: its `http` is a class made by `gateway.http.limits.limited`.
        notice_s: how long to serve on once it was told to end; part of what `ending` has.
        begin: called when it is told to end, by a signal handler.
        leave: called then by the event loop: nothing is ready any more.
        close: called when the ports close.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        ending: Ending,
        *,
        notice_s: float,
        begin: Callable[[], None],
        leave: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._ending = ending
        self._notice_s = notice_s
        self._begin = begin
        self._leave = leave
        self._close = close

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The process was told to end."""
        self._begin()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give notice, then close and let run to its end what runs."""
        self._leave()
        protocol = self.config.http_protocol_class
        assert issubclass(protocol, Connection)
        protocol.leaving = True
        until_s = time.monotonic() + min(self._notice_s, self._ending.left_s())
        while time.monotonic() < until_s and not self.force_exit:
            await asyncio.sleep(_POLL_S)
        self._close()
        self.config.timeout_graceful_shutdown = self._ending.left_s()  # type: ignore[assignment]
        await super().shutdown(sockets)
