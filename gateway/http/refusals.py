"""Refusals written again: a request whose bytes were refused a moment ago is not even parsed.

What was once parsed, and was one whole request in one packet, needs no parsing again where its head
comes byte for byte and a body of the same length follows. What is in the body may matter, so it is
looked through for constraints (`gateway.shed`).

A busy loop reads hundreds of requests in one turn before it decides the first of them. As many as
it can decide in a turn are let through, and the others refused as the ones before them were: else
a flood would be parsed, decoded and queued as tasks for nothing, and each turn be longer than the
last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.http.heads import are_whole
from gateway.recording import origins
from gateway.shed import Held, demands_nothing
from gateway.wire.problems import Headers

# Heads whose refusals are kept.
_MOST_KEPT = 1024
# Requests that are let through in a turn of the loop, of those that were refused before: more than
# a loop that is not behind reads in one, and a few milliseconds of work.
_IN_A_TURN = 64
_REQUEST_ID = origins.REQUEST_ID.encode()

Refusal = Held[tuple[int, Headers, bytes]]


class _Kept(NamedTuple):
    """A refusal of requests with one head: what is written, and what their bodies must be.

    Attributes:
        before, after: what is written around the request's name.
        name: the one that the head gives it; None where each gets one of ours.
    """

    held: Refusal
    before: bytes
    name: bytes | None
    after: bytes
    body_bytes: int
    json_length: int | None


class Refusals:
    """Refusals by a request's head; one for all connections of a server."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Kept] = {}
        self._let_through = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def keep(
        self,
        packet: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        cycle: RequestResponseCycle,
        held: Refusal,
        json_length: int | None,
    ) -> None:
        """Keep the refusal of the request that began `packet`, if that is the whole of both."""
        head = packet[: packet.find(b"\r\n\r\n") + 4]
        body_bytes = len(packet) - len(head)
        if not cycle.keep_alive or not are_whole(head, body_bytes, headers):
            return
        own = [value for name, value in headers if name == _REQUEST_ID]
        status, said, body = held.answer
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *said)]
        given = origins.named(own[-1].decode("latin-1")) if own else None
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        before = b"".join((STATUS_LINE[status], *lines, _REQUEST_ID, b": "))
        name = None if given is None else given.encode()
        after = b"\r\n\r\n" + body
        self._kept[head] = _Kept(held, before, name, after, body_bytes, json_length)

    def find(self, head: bytes, data: bytes, loop: asyncio.AbstractEventLoop) -> bytes | None:
        """What to write to who sent `data`, which begins with `head`; None where it must be read
        and decided."""
        kept = self._kept.get(head)
        if kept is None or len(data) != len(head) + kept.body_bytes:
            return None
        if not demands_nothing(memoryview(data)[len(head) :], kept.json_length):
            return None
        if kept.held.stands(time.monotonic(), crowded=self._let_through >= _IN_A_TURN):
            kept.held.count()
            return b"".join((kept.before, kept.name or origins.fresh().encode(), kept.after))
        if not self._let_through:
            loop.call_soon(self._next_turn)
        self._let_through += 1
        return None

    def _next_turn(self) -> None:
        self._let_through = 0
