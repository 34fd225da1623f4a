"""What must hold before a request reaches the app: its head is small, well formed, and in time.

uvicorn's parser collects a header block of any size, waits for ever for one that never ends, and
answers malformed HTTP in plain text. This subclass counts the bytes of each head as they come and
refuses the connection at the limit, so that no more than the limit is ever kept; it gives a
request a time to arrive in; and it stamps the moment of the last byte, from which deadlines count,
before anything is queued on a busy loop.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import BaseTransport, TimerHandle
from collections.abc import Awaitable
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway.http.asgi import ANSWER, KEEP, KNOWN, RECEIVED_S, Receive, Scope, Send
from gateway.http.connections import PROGRESS_BYTES, Connection
from gateway.http.exchange import Exchange
from gateway.http.heads import Head, Heads
from gateway.http.refusals import Refusals
from gateway.recording import origins
from gateway.wire import problems
from gateway.wire.problems import Headers

# A refused client may be sending still. Closing at once would reset the connection, and the
# answer could be lost with it; what it sends meanwhile is thrown away.
_LINGER_S = 2.0


class LimitedHttpProtocol(Connection):
    """uvicorn's protocol, with limits. `limited` makes the class that a server uses."""

    # Answers to be written at the loop's next turn; one list for all connections of a server.
    outbox: ClassVar[list[tuple[RequestResponseCycle, bytes]]] = []
    # Refusals that may still stand, by a request's whole head; for all connections likewise.
    refusals: ClassVar[Refusals] = Refusals()
    # And heads that came before.
    heads: ClassVar[Heads] = Heads()
    max_header_bytes = 64 << 10
    read_timeout_s = 60.0
    # Whether that is the time for each `PROGRESS_BYTES` of a body, not for all of it.
    large_bodies = False

    # Between messages, or inside a head: its bytes count. Class attributes are first values.
    _in_head = True
    # Bytes since the parser last got on: of the head so far, or of a chunked body's framing.
    _counted = 0
    _got_on = False
    # Of a body, since its reader's time began.
    _arrived = 0
    _refused = False
    _timer: TimerHandle | None = None
    url = b""
    # Whether no byte of a request has come since the one before it ended.
    _between = True
    # What came, while a request that began with it is looked for.
    _packet = b""
    # A head that may be kept once its request is answered, the bytes behind it, and that request.
    _whole: tuple[bytes, int, RequestResponseCycle] | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        self.headers = []
        super().connection_made(transport)
        if not self._refused:
            self._timer = self.loop.call_later(self.read_timeout_s, self._too_slow)

    def too_many(self, most: int) -> None:
        detail = f"{most} connections are open, the most there may be"
        self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, detail)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._between and not self._counted and not self._refused:
            if self._came_before(data):
                return
            self._packet = data
        left: bytes | memoryview = data
        piece: bytes | memoryview
        while left and not self._refused:
            # No more of a head is parsed than may be kept. One that begins in the middle of a
            # packet, behind a body, is counted from the next packet on.
            allowed = self.max_header_bytes - self._counted
            if self._in_head and len(left) > allowed:
                whole = memoryview(left)
                piece, left = whole[:allowed], whole[allowed:]
            else:
                piece, left = left, b""
            self._got_on = False
            try:
                try:
                    self.parser.feed_data(piece)
                except httptools.HttpParserUpgrade as upgrade:
                    self._stay_on_http1(bytes(piece[upgrade.args[0] :]))
            except httptools.HttpParserError:
                self.send_400_response("the request is not valid HTTP/1.1")
                return
            if self._got_on:
                self._counted = 0
            else:
                self._counted += len(piece)
                if self._counted >= self.max_header_bytes:
                    self._too_large()
        self._packet = b""
        if self._refused:
            return
        if self._in_head and not self._counted:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.read_timeout_s, self._too_slow)

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self._in_head, self._got_on, self._arrived = False, True, 0
            if self.leaving:
                self.cycle.keep_alive = False
            self.scope[ANSWER] = partial(self._answer, self.cycle)  # type: ignore[literal-required]

    def on_body(self, body: bytes) -> None:
        self._got_on = True
        self._arrived += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_head, self._got_on, self._between = True, True, True
        self.scope[RECEIVED_S] = time.monotonic()  # type: ignore[literal-required]
        packet, self._packet = self._packet, b""
        if packet and self.cycle.keep_alive and self.scope["method"] == "POST":
            end = packet.find(b"\r\n\r\n") + 4
            self._whole = packet[:end], len(packet) - end, self.cycle
            headers = self.scope["headers"]
            self.scope[KEEP] = partial(self.refusals.keep, packet, headers, self.cycle)  # type: ignore[literal-required]
        super().on_message_complete()

    async def _answer(
        self, cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes
    ) -> bool:
        """What uvicorn's `send` does for a head and a body that are a whole answer, in one write.

        Apart they are two system calls; and uvicorn looks through each header for what ours, made
        of names and numbers, cannot hold. The answers of one turn of the loop go out together at
        the next: written one by one between the work for the others, each would wake a client that
        then takes the processor for itself.

        Returns:
            Whether it was written; if not, `send` must do it, which can wait for a slow reader.
        """
        if self._whole is not None and self._whole[2] is cycle:
            head, behind, _ = self._whole
            self._whole = None
            if status == HTTPStatus.OK:  # nobody fills the table who may not ask
                self.heads.keep(head, behind, cast(Scope, cycle.scope))
        if self.flow.write_paused or cycle.disconnected:
            return False
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        if not self.outbox:
            self.loop.call_soon(_send_out, self.outbox)
        self.outbox.append((cycle, b"".join((STATUS_LINE[status], *lines, b"\r\n", body))))
        await asyncio.sleep(0)  # by the next turn it is written
        return True

    def _came_before(self, data: bytes) -> bool:
        """Whether this was one whole request with a head that came before; then it is seen to."""
        cycle = self.cycle
        if self.flow.write_paused or not (cycle is None or cycle.response_complete):
            return False
        end = data.find(b"\r\n\r\n") + 4
        packet_head = data[:end]
        if self.refusals and not self.leaving:
            written = self.refusals.find(packet_head, data, self.loop)
            if written is not None:
                self._stop_timer()
                self.transport.write(written)
                self.on_response_complete()
                return True
        head = self.heads.find(packet_head)
        if head is None or len(data) != end + head.body_bytes:
            return False
        self._stop_timer()
        self._begin(head, data, end)
        return True

    def _begin(self, head: Head, packet: bytes, end: int) -> None:
        """Have a request answered whose head, up to `end`, came before."""
        cycle = self.cycle = Exchange(self, packet[end:], keep_alive=not self.leaving)
        scope: Scope = {
            **head.scope,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "state": self.app_state.copy(),
            KNOWN: head.known,
            ANSWER: partial(self._answer, cycle),
            KEEP: partial(self.refusals.keep, packet, head.scope["headers"], cycle),
            RECEIVED_S: time.monotonic(),
        }
        self._start_asgi_task(cycle, partial(_with_scope, self.app, scope))

    def _stay_on_http1(self, rest: bytes) -> None:
        """Read the request again without its wish for another protocol, which it may be denied.

        The parser would take the body for that protocol's bytes. Java's client, for one, asks for
        HTTP/2 with each first request, whatever its body.
        """
        if self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError
        hop = (b"connection", b"upgrade", b"http2-settings")
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] not in hop]
        line = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"".join((line, *kept, b"\r\n", rest)))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; overrides uvicorn's answer in plain text."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _too_large(self) -> None:
        limit = self.max_header_bytes
        # Only a request line that fills most of the head by itself is to blame for its length.
        if self._in_head and len(self.url) > limit // 2:
            detail = f"the request line and headers are over the limit of {limit} bytes"
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, detail)
        else:
            detail = f"the header block is over the limit of {limit} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def _too_slow(self) -> None:
        self._timer = None
        got_on = self.large_bodies and not self._in_head and self._arrived >= PROGRESS_BYTES
        if got_on or self.flow.read_paused:
            # Where it does not, it is not the client's fault: this side does not read at present.
            self._arrived = 0
            self._timer = self.loop.call_later(self.read_timeout_s, self._too_slow)
        elif self._in_head and not self._counted:
            self.transport.close()  # it never began, so there is nothing to answer
        else:
            detail = f"the request did not arrive whole within {self.read_timeout_s:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer once more on this connection, then close it."""
        self._refused = True
        self._stop_timer()
        cycle = self.cycle
        if self._in_head:
            if cycle is not None and not cycle.response_complete:
                # An earlier request is being answered, and its answer comes first: leave it that.
                cycle.keep_alive = False
                return
        elif cycle.response_started:
            self._stop_lingering()
            return
        else:
            # The app waits for the rest of this very request, which now never comes.
            cycle.disconnected = True
            cycle.message_event.set()
        self.logger.info("refused with %d: %s", status, detail)
        own = [(b"connection", b"close"), (b"x-request-id", origins.fresh().encode())]
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            own.append((b"retry-after", b"1"))
        _, headers, body = problems.of_status(status, detail, own)
        self.transport.write(
            STATUS_LINE[status]
            + b"".join(
                b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)
            )
            + b"\r\n"
            + body
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(_LINGER_S, self._stop_lingering)

    def _stop_lingering(self) -> None:
        self.transport.close()
        self.let_go()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _with_scope(app: Any, scope: Scope, _: object, receive: Receive, send: Send) -> Awaitable[None]:
    """Call an app with the scope of an `Exchange`, which holds none."""
    called: Awaitable[None] = app(scope, receive, send)
    return called


def _send_out(outbox: list[tuple[RequestResponseCycle, bytes]]) -> None:
    for cycle, answer in outbox:
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if not (cycle.disconnected or cycle.transport.is_closing()):
            cycle.transport.write(answer)
            if not cycle.keep_alive:
                cycle.transport.close()
        cycle.on_response()
    outbox.clear()


def limited(
    max_header_bytes: int,
    read_timeout_seconds: float,
    *,
    write_timeout_seconds: float = 60.0,
    large_bodies: bool = False,
    max_connections: int | None = None,
) -> type[HttpToolsProtocol]:
    """The class to give to uvicorn as `http`, with these limits."""
    limits: dict[str, Any] = {
        "max_header_bytes": max_header_bytes,
        "read_timeout_s": read_timeout_seconds,
        "write_timeout_s": write_timeout_seconds,
        "large_bodies": large_bodies,
        "max_connections": max_connections,
        "outbox": [],
        "refusals": Refusals(),
        "heads": Heads(),
    }
    return type("LimitedHttpProtocol", (LimitedHttpProtocol,), limits)
