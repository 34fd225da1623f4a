"""ModelStreamInfer: many requests on one stream, each its own, answered in their order.

They run side by side, so that they share batches. A request that cannot be answered ends in a
message with `error_message`, and the stream goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from gateway.journal import Journal
from gateway.rpc import messages, problems
from gateway.rpc.calls import STREAM, Call
from gateway.rpc.infer import Answered, Asked
from gateway.trust.access import ANYBODY, Access
from gateway.wire import said
from router.errors import GearshiftError, NotReady

# Requests of one stream that run or wait for their turn to be answered: two full batches. Beyond,
# the caller is not read, so that one who sends faster than they read takes no more memory.
_IN_FLIGHT = 64

_Answering = asyncio.Task[Any]


class Streams:
    """Every stream that is open.

    Args:
        infer: answers one request.
    """

    def __init__(
        self,
        infer: Callable[[Any, Asked], Awaitable[Answered]],
        access: Access,
        journal: Journal,
    ) -> None:
        self._infer = infer
        self._access = access
        self._journal = journal
        self._reading: set[asyncio.Task[None]] = set()
        self._stopping = False

    def stop(self) -> None:
        """Read no more requests; those that were read are answered."""
        self._stopping = True
        for reading in self._reading:
            reading.cancel()

    async def __call__(self, call: Call) -> None:
        """Serve one stream to its end.

        Raises:
            NotReady: the server stops.
            TooLarge, InvalidRequest: what came is no message; those before it were answered.
        """
        if self._stopping:
            raise _stopping()
        room = asyncio.Semaphore(_IN_FLIGHT)
        turn: asyncio.Queue[_Answering | None] = asyncio.Queue()
        running: set[_Answering] = set()
        reading = asyncio.create_task(self._read(call, room, turn, running))
        self._reading.add(reading)
        reading.add_done_callback(self._read_to_end)
        try:
            while (answering := await turn.get()) is not None:
                await call.write(await answering)
                room.release()
            if reading.cancelled():
                raise _stopping()
            await reading
        finally:
            for task in (reading, *running):
                task.cancel()

    async def _read(
        self,
        call: Call,
        room: asyncio.Semaphore,
        turn: asyncio.Queue[_Answering | None],
        running: set[_Answering],
    ) -> None:
        try:
            await room.acquire()
            while (message := await call.message(pb.ModelInferRequest)) is not None:
                call.begin(self._journal, STREAM)
                asked = call.asked(message.id)
                answering = asyncio.create_task(self._answer(message, asked, call))
                running.add(answering)
                answering.add_done_callback(running.discard)
                turn.put_nowait(answering)
                await room.acquire()
        finally:
            turn.put_nowait(None)

    def _read_to_end(self, reading: asyncio.Task[None]) -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # looked at here, for a stream that ended otherwise before

    async def _answer(self, message: Any, asked: Asked, call: Call) -> Any:
        answer = pb.ModelStreamInferResponse()
        infer = answer.infer_response
        try:
            answered = await self._entered(message, asked, call)
        except GearshiftError as error:
            answer.error_message = error.detail
            infer.model_name, infer.id = message.model_name, message.id
            named = messages.as_parameters(said.of_origin(asked.origin))
            messages.say(infer, problems.parameters(error) | named)
        else:
            infer.CopyFrom(answered.message)
        # As Triton says it: nothing more follows for this request.
        infer.parameters["triton_final_response"].bool_param = True
        return answer

    async def _entered(self, message: Any, asked: Asked, call: Call) -> Answered:
        try:
            caller = self._access.enter(call.authorization, "infer")
        except GearshiftError as error:
            whose = self._access.kept_out(error)
            origin = asked.origin._replace(tenant=whose.tenant, key=whose.name)
            self._journal.failed(message.model_name, error, 0.0, origin)
            raise
        if caller is not ANYBODY:
            origin = asked.origin._replace(tenant=caller.tenant, key=caller.name)
            asked = replace(asked, origin=origin)
        usd = 0.0
        try:
            answered = await self._infer(message, asked)
            usd = answered.usd
            return answered
        finally:
            self._access.leave(caller, usd)


def _stopping() -> NotReady:
    return NotReady("the server is stopping")
