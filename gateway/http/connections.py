"""A connection as a whole: how many there may be, how long one idles, and who reads too slowly.

uvicorn keeps what a client does not read for ever, and a connection that ends is not gone before
the client has read everything and, over TLS, has said goodbye. This subclass bounds both.
"""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle, Transport
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# What must pass of a large body or answer within the time for it: 1 KiB/s over a minute.
PROGRESS_BYTES = 64 << 10
# A request may be on its way over a connection that idles: it is waited for so long at the end.
_IDLE_S = 0.08
# How long the other side may take to say goodbye.
_FAREWELL_S = 1.0
# As many connections more are told why they are refused; those beyond are cut off.
_TOLD = 100


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with limits on the connection itself. Class attributes are settings."""

    max_connections: int | None = None
    write_timeout_s = 60.0
    # Whether the server ends: then each answer is the last one of its connection.
    leaving = False

    _reader: TimerHandle | None = None
    _leaving: TimerHandle | None = None
    _unread = 0

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast(Transport, transport))
        most = self.max_connections
        if most is not None and len(self.connections) > most:
            if len(self.connections) > most + _TOLD:
                self.transport.abort()
            else:
                self.too_many(most)

    def too_many(self, most: int) -> None:
        """Refuse a connection that is one too many, beside `most` others."""
        del most
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._reader, self._leaving):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._reader = self.loop.call_later(self.write_timeout_s, self._look_at_reader)

    def resume_writing(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        self.flow.resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self.let_go()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.let_go()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_IDLE_S, self._close_idle)
        else:
            super().shutdown()

    def _close_idle(self) -> None:
        if self.transport.is_closing():
            return
        super().shutdown()
        if self.transport.is_closing():
            self.let_go()

    def let_go(self) -> None:
        """See to it that a connection which is being closed is gone before long."""
        if self._leaving is None:
            unread = self.transport.get_write_buffer_size()
            after_s = self.write_timeout_s if unread else _FAREWELL_S
            self._leaving = self.loop.call_later(after_s, self._gone)

    def _gone(self) -> None:
        self._leaving = None
        if self.flow.write_paused:
            self.let_go()  # still at a large answer, whose pace is watched
        else:
            self.transport.abort()

    def _look_at_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if self._unread - unread < PROGRESS_BYTES:
            self._reader = None
            self.logger.info("cut off: %d bytes of an answer were not read in time", unread)
            self.transport.abort()
            return
        self._unread = unread
        self._reader = self.loop.call_later(self.write_timeout_s, self._look_at_reader)
