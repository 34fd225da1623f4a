"""A request that came whole, with a head that came before, and its answer."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# What sending an answer asks of a request. The request's own scope is not held: the scope holds
# what answers it, and the two would keep each other, and the body, until the collector came by.
_POST = cast(HTTPScope, {"method": "POST"})


class Exchange(RequestResponseCycle):
    """uvicorn's cycle, without what only a request needs that comes bit by bit."""

    def __init__(self, protocol: HttpToolsProtocol, body: bytes, *, keep_alive: bool) -> None:
        self.scope = _POST
        self.body = body  # type: ignore[assignment]  # read once, and replaced then
        self.more_body = False
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.logger = protocol.logger
        self.default_headers = protocol.server_state.default_headers
        self.on_response = protocol.on_response_complete
        self.keep_alive = keep_alive
        self.message_event = asyncio.Event()
        self.message_event.set()
        self.access_log = self.disconnected = self.waiting_for_100_continue = False
        self.response_started = self.response_complete = False
        self.chunked_encoding: bool | None = None
        self.expected_content_length = 0
