"""The frame of every call: who calls, its message in time and within its limit, how it ends.

Every method is served as one that takes a stream, which on the wire is the same: its metadata come
before its message, so that a caller is refused before their message is read, and one who sends it
too slowly is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from gateway import aside
from gateway.http.asgi import too_large
from gateway.journal import Journal
from gateway.messages import UNTOLD
from gateway.recording import origins
from gateway.rpc import problems
from gateway.rpc.infer import Asked
from gateway.rpc.messages import parsed
from gateway.trust import access, forwarded
from gateway.wire import demands, said
from gateway.wire.long_lists import LONG_BYTES
from router import constraints
from router.errors import CallerLeft, GearshiftError

_LOG = logging.getLogger(__name__)

# Answers shorter than this fit a packet as they are.
_COMPRESS_BYTES = 1024

# The full names of the methods that infer.
ONE = "inference.GRPCInferenceService/ModelInfer"
STREAM = "inference.GRPCInferenceService/ModelStreamInfer"

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may use up: a message's size, and the time from a call's start to its end."""

    message_bytes: int
    read_timeout_s: float


class Call:
    """One call, from its metadata on.

    Attributes:
        headers: the metadata that may state constraints.
        origin: whose request it is; of a stream, the request that came last.
        came_s: monotonic time of its first byte.
        size: bytes of the last message.
        usd: what it is charged, so far.
    """

    __slots__ = (
        "_compress",
        "_context",
        "_given",
        "_limits",
        "_parent",
        "authorization",
        "came_s",
        "headers",
        "origin",
        "size",
        "usd",
    )

    def __init__(self, context: Any, limits: Limits) -> None:
        self._context = context
        self._limits = limits
        self._compress = False
        self.came_s = time.monotonic()
        self.size = 0
        self.usd = 0.0
        self.authorization: bytes | None = None
        self.origin = UNTOLD
        self._given: str | None = None
        self._parent: tuple[str | None, str | None] = None, None
        headers: list[tuple[str, str]] = []
        for key, value in context.invocation_metadata():
            if key.startswith(constraints.HEADER_PREFIX) or key in constraints.ALIASES:
                headers.append((key, _text(value)))
            elif key == "authorization":
                self.authorization = _text(value).encode()
            elif key == "accept-encoding":
                self._compress = "gzip" in _text(value)
            elif key == origins.TRACEPARENT:
                self._parent = _text(value), self._parent[1]
            elif key == origins.TRACESTATE:
                self._parent = self._parent[0], _text(value)
            elif key == origins.REQUEST_ID:
                self._given = origins.named(_text(value))
        self.headers: demands.Headers = tuple(headers)

    @property
    def passed_on(self) -> bool:
        """Whether a proxy passed it on."""
        metadata = self._context.invocation_metadata()
        return forwarded.passed_on(key.encode() for key, _ in metadata)

    async def message(self, kind: Any) -> Any | None:
        """The next message; None where there are no more.

        Raises:
            TooLarge, InvalidRequest: it is too long, or no message of this kind.
        """
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            return None
        limit = self._limits.message_bytes
        if len(raw) > limit:
            raise too_large(limit, f"{len(raw)} bytes")
        self.size = len(raw)
        return parsed(kind, raw) if self.size < LONG_BYTES else await aside.run(parsed, kind, raw)

    async def only_message(self, kind: Any) -> Any:
        """The one message of a call, if it comes in time.

        Raises:
            CallerLeft: before it came.
            TooLarge, InvalidRequest: as `message`.
        """
        timer = asyncio.get_running_loop().call_later(self._limits.read_timeout_s, self._cut_off)
        try:
            message = await self.message(kind)
        finally:
            timer.cancel()
        if message is None:
            raise CallerLeft("the caller left before the end of its request")
        return message

    def begin(self, journal: Journal, method: str) -> None:
        """A request to infer begins here; `origin` is its own from now on."""
        self.origin = journal.began("grpc", method, self._given, *self._parent)

    def asked(self, given: str) -> Asked:
        """What it says beside the message that has just come, all of it now.

        Args:
            given: what the message is called.
        """
        if self._given is None and origins.named(given):
            self.origin = self.origin._replace(id=given)
        now_s = time.monotonic()
        return Asked(self.headers, self.remaining_ms(), now_s, self.size, self.origin)

    def remaining_ms(self) -> float | None:
        """Until the deadline that gRPC itself carries (`grpc-timeout`); None without one."""
        remaining_s = self._context.time_remaining()
        return None if remaining_s is None else remaining_s * 1000

    def say(self, metadata: list[tuple[bytes, bytes]]) -> None:
        """Let trailing metadata say so."""
        self._context.set_trailing_metadata(tuple([(key.decode(), text) for key, text in metadata]))

    async def packed(self, message: Any) -> bytes:
        """An answer as bytes; compressed by gRPC where the caller asked for it."""
        raw: bytes = message.SerializeToString()
        if self._compress and len(raw) >= _COMPRESS_BYTES:
            self._context.set_compression(grpc.Compression.Gzip)
            # It is among the initial metadata, which gRPC forgets to look at when it sends an
            # answer and its metadata in one.
            await self._context.send_initial_metadata(())
        return raw

    async def write(self, message: Any) -> None:
        """Send one answer of a stream."""
        await self._context.write(message.SerializeToString())

    def _cut_off(self) -> None:
        cutting = asyncio.ensure_future(self._late())
        cutting.add_done_callback(_forget)

    async def _late(self) -> None:
        # What HTTP answers 408.
        limit = f"{self._limits.read_timeout_s:g} s"
        detail = f"the request did not arrive whole within {limit}"
        with contextlib.suppress(grpc.aio.AbortError):
            await self._context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, detail)


class Frame:
    """What every method is wrapped in."""

    def __init__(self, door: access.Access, journal: Journal, limits: Limits) -> None:
        self._access = door
        self._journal = journal
        self._limits = limits

    def unary(
        self, kind: Any, scope: access.Scope | None, answer: Callable[[Any, Call], Awaitable[Any]]
    ) -> Any:
        """A method that answers one message with one.

        Args:
            kind: the request's message type.
            scope: what its caller's key must allow; None where nobody needs one.
            answer: gives the response's message.
        """

        async def work(call: Call) -> bytes:
            try:
                message = await call.only_message(kind)
            except GearshiftError as error:
                self._count(scope, error, call)
                raise
            except asyncio.CancelledError:
                self._count(scope, CallerLeft("the caller left"), call)
                raise
            return await call.packed(await answer(message, call))

        async def handle(_: object, context: Any) -> bytes | None:
            return await self._framed(context, scope, work)

        return grpc.stream_unary_rpc_method_handler(handle)

    def stream(self, work: Callable[[Call], Awaitable[None]]) -> Any:
        """A method that reads and writes messages as it likes, each a request of its own."""

        async def handle(_: object, context: Any) -> None:
            await self._framed(context, None, work)

        return grpc.stream_stream_rpc_method_handler(handle)

    def missing(self, name: str) -> Any:
        """A method of the service that is not offered."""

        async def handle(_: object, context: Any) -> None:
            detail = f"{name} belongs to an extension that is not offered"
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, detail)

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _framed(
        self, context: Any, scope: access.Scope | None, work: Callable[[Call], Awaitable[_Answer]]
    ) -> _Answer | None:
        call = Call(context, self._limits)
        caller: access.Caller | None = None
        try:
            if scope is not None:
                if scope == "infer":
                    call.begin(self._journal, ONE)
                caller = self._enter(call, scope)
                if caller is not access.ANYBODY:
                    call.origin = call.origin._replace(tenant=caller.tenant, key=caller.name)
            return await work(call)
        except GearshiftError as error:
            refusal = error
        except grpc.aio.AbortError:
            raise
        except Exception:
            _LOG.exception("a call failed", extra=origins.logged(call.origin))
            refusal = GearshiftError("an unexpected error; the server's log says more")
        finally:
            if caller is not None:
                self._access.leave(caller, call.usd)
        code, details, trailing = problems.of(refusal)
        if call.origin.id:
            named = said.of_origin(call.origin)
            trailing = (*trailing, *((key.decode(), text) for key, text in named))
        try:
            await context.abort(code, details, trailing)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # of a kind that gRPC keeps to itself
            # Not its words, which may repeat what the caller sent.
            _LOG.debug("nobody was there to be told %s: %s", refusal.code, type(error).__name__)
        return None  # gRPC knows that the call was aborted

    def _enter(self, call: Call, scope: access.Scope) -> access.Caller:
        try:
            passed_on = scope == "admin" and call.passed_on
            return self._access.enter(call.authorization, scope, forwarded=passed_on)
        except GearshiftError as error:
            whose = self._access.kept_out(error)
            call.origin = call.origin._replace(tenant=whose.tenant, key=whose.name)
            self._count(scope, error, call)
            raise

    def _count(self, scope: access.Scope | None, error: GearshiftError, call: Call) -> None:
        """Count a request to infer that ended before its model was known."""
        if scope == "infer":
            self._journal.failed("", error, time.monotonic() - call.came_s, call.origin)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _forget(task: asyncio.Future[None]) -> None:
    # The call may have ended in the meantime, which is as well.
    if not task.cancelled():
        task.exception()
