"""What the protocols share of ASGI: headers, a body within its limit, sending an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.journal import Journal
from gateway.messages import Origin
from gateway.recording import origins
from gateway.trust.accounts import Caller
from gateway.wire.problems import Headers
from router import constraints
from router.errors import CallerLeft, TooLarge

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON_LENGTH = b"inference-header-content-length"
CONTENT_LENGTH = b"content-length"
CONTENT_ENCODING = b"content-encoding"
ACCEPT_ENCODING = b"accept-encoding"
# Keys of a scope: the monotonic time of the request's last byte, a function that writes a whole
# answer at once, and one that keeps a refusal; all three are there where our own server runs the
# app. Then where a route leaves what the request is charged, in USD.
RECEIVED_S = "gearshift.received_s"
ANSWER = "gearshift.answer"
KEEP = "gearshift.keep"
CHARGED_USD = "gearshift.charged_usd"
# What was read of a head that came before, for all requests that have it; absent for others.
KNOWN = "gearshift.known"
# And whose request it is, from the guard; and what `began` made of that.
CALLER = "gearshift.caller"
ORIGIN = "gearshift.origin"

REQUEST_ID = origins.REQUEST_ID.encode()
TRACEPARENT = origins.TRACEPARENT.encode()
TRACESTATE = origins.TRACESTATE.encode()

_OWN = frozenset(
    (
        JSON_LENGTH,
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        ACCEPT_ENCODING,
        REQUEST_ID,
        TRACEPARENT,
        TRACESTATE,
    )
)
# The templates of the paths that requests to infer come by, as routers and traces know them.
INFER_ROUTE = "/v2/models/{model}/infer"
INFER_ROUTE_OF_VERSION = "/v2/models/{model}/versions/{version}/infer"

_PREFIX = constraints.HEADER_PREFIX.encode()
_ALIASES = frozenset(alias.encode() for alias in constraints.ALIASES)
_DISCONNECT = "http.disconnect"
_NOBODY = Caller("")


def read_headers(scope: Scope) -> tuple[dict[bytes, bytes], tuple[tuple[str, str], ...]]:
    """The headers that are read here, and those that may state constraints, as `parse` wants.

    Neither is to be changed: requests with one head share them.
    """
    known: dict[str, Any] | None = scope.get(KNOWN)
    if known:
        return known["own"], known["stated"]
    own: dict[bytes, bytes] = {}
    stated: list[tuple[str, str]] = []
    for name, value in scope["headers"]:
        if name.startswith(_PREFIX) or name in _ALIASES:
            stated.append((name.decode("latin-1"), value.decode("latin-1")))
        elif name in _OWN:
            own[name] = value
    if known is not None:
        known["own"], known["stated"] = own, tuple(stated)
    return own, tuple(stated)


def began(scope: Scope, own: dict[bytes, bytes], route: str, journal: Journal) -> Origin:
    """The origin of a request, by those headers of it that are read here; the scope holds it.

    Args:
        route: the template of its path.
    """
    caller: Caller = scope.get(CALLER, _NOBODY)
    traceparent = own.get(TRACEPARENT)
    given, state = own.get(REQUEST_ID), own.get(TRACESTATE)
    origin = journal.began(
        "rest",
        route,
        None if given is None else given.decode("latin-1"),
        None if traceparent is None else traceparent.decode("latin-1"),
        None if state is None else state.decode("latin-1"),
        tenant=caller.tenant,
        key=caller.name,
    )
    scope[ORIGIN] = origin
    return origin


def named(scope: Scope, send: Send) -> Send:
    """A `send` that gives an answer the request's name, as its caller gave it or as we do."""
    given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
    name = origins.named(given.decode("latin-1")) or origins.fresh()

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if all(header[0] != REQUEST_ID for header in headers):
                message = {**message, "headers": [*headers, (REQUEST_ID, name.encode())]}
        await send(message)

    return sending


async def read_body(receive: Receive, content_length: bytes | None, limit_bytes: int) -> bytes:
    """The whole body of a request.

    A body that is too long is refused as soon as that is known, from what the client declares or,
    where it declares nothing, from what has come so far.

    Raises:
        TooLarge: more than `limit_bytes`.
        CallerLeft: before the end of it.
    """
    if content_length is not None and int(content_length) > limit_bytes:
        raise too_large(limit_bytes, f"{int(content_length)} bytes")
    message = await receive()
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == _DISCONNECT:
            raise CallerLeft("the caller left before the end of its request")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise too_large(limit_bytes, f"{size} bytes so far")
        if not message.get("more_body", False):
            if not chunks:
                return chunk
            chunks.append(chunk)
            return b"".join(chunks)
        chunks.append(chunk)
        message = await receive()


async def disconnected(receive: Receive) -> None:
    """Returns when the caller of a request that was read to its end has gone."""
    while (await receive())["type"] != _DISCONNECT:
        pass


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send one whole answer; `headers` must hold its length."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def too_large(limit_bytes: int, received: str) -> TooLarge:
    """The error for a body over the limit, in every protocol's words."""
    return TooLarge(
        f"body: expected at most {limit_bytes} bytes, got {received}",
        field="body",
        received=received,
        expected=f"at most {limit_bytes} bytes",
    )
