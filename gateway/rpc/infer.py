"""One infer request over gRPC: a message in, a message out."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway import aside
from gateway.journal import Journal
from gateway.messages import InferRequest, InferResponse, Origin
from gateway.recording import origins
from gateway.rpc import messages
from gateway.service import Service
from gateway.wire import demands, said, v2, v2_answer
from router import constraints
from router.errors import CallerLeft, DeadlinePassed, GearshiftError, NotReady

_LOG = logging.getLogger(__name__)

# What an answer takes on its way back once it is made. Without it the transport would end a late
# call just before we do, and its caller would read gRPC's words and not what the matter was.
_RETURN_MS = 2.0
# A caller's clock runs since before ours: its deadline passes, and it cancels, so much sooner.
_AHEAD_MS = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call says beside its message.

    Attributes:
        headers: metadata that may state constraints, as `constraints.parse` wants them.
        remaining_ms: until gRPC's own deadline, from `received_s`; None without one.
        received_s: monotonic time of its last byte.
        size: of its message, in bytes.
        origin: whose it is.
    """

    headers: demands.Headers
    remaining_ms: float | None
    received_s: float
    size: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, what it says about itself, and what it is charged, in USD."""

    message: Any
    said: said.Said
    usd: float


class _Read(NamedTuple):
    """A request, and what its answer should look like."""

    request: InferRequest
    body: v2.Body
    labels: tuple[str, ...] | None
    explain: bool


class Infer:
    """The infer path."""

    def __init__(self, service: Service, journal: Journal) -> None:
        self._service = service
        self._journal = journal
        self.stopping = False

    async def __call__(self, message: Any, asked: Asked) -> Answered:
        """Answer one ModelInferRequest; it is counted, however it ends.

        Raises:
            GearshiftError: one of its tree, when there is no answer.
            asyncio.CancelledError: the call has ended: its caller left, its deadline passed, or the
                server cannot wait for it any longer.
        """
        model: str = message.model_name
        read: _Read | None = None
        try:
            read = await self._read(message, asked)
            parsed_s = time.monotonic()
            marks = asked.origin.marks
            if marks is not None:
                marks.received_s, marks.parsed_s = asked.received_s, parsed_s
            response = await self._service.infer(read.request, _nobody_leaves)
            if v2_answer.is_long(response.outputs, read.body.outputs):
                answer = await aside.run(_encoded, read, response)
            else:
                answer = _encoded(read, response)
            self._service.sending(read.request, response)
        except GearshiftError:
            raise  # counted already
        except asyncio.CancelledError:
            age_s = time.monotonic() - asked.received_s
            why = self._why_it_ended(asked, age_s)
            self._journal.failed(model, why, age_s, asked.origin, read and read.request)
            raise
        except Exception:
            _LOG.exception("a request for %s failed", model, extra=origins.logged(asked.origin))
            error = GearshiftError("an unexpected error; the server's log says more")
            self._journal.failed(model, error, 0.0, asked.origin, read and read.request)
            raise error from None
        words = said.of(response, (parsed_s - asked.received_s) * 1000)
        words += said.of_origin(asked.origin)
        # Beside the metadata, which not every client lets its callers read and a stream has once.
        messages.say(answer, messages.as_parameters(words))
        return Answered(answer, words, response.cost_usd_per_million / 1e6)

    async def _read(self, message: Any, asked: Asked) -> _Read:
        """The request of a message; counted, where it is none."""
        try:
            served = self._service.fleet.model(message.model_name)
            specs = served.inputs_by_name, served.outputs_by_name
            if messages.is_long(message, asked.size, served.inputs_by_name):
                body = await aside.run(messages.decode, message, *specs)
            else:
                body = messages.decode(message, *specs)
            v2.check_sizes(body.inputs, served.equal_sizes)
            version = message.model_version or None
            demanded = demands.of(served, asked.headers, body.parameters, version)
            left_ms = asked.remaining_ms
            if left_ms is not None:
                if left_ms <= 0:
                    raise DeadlinePassed("the deadline passed before the request had arrived")
                demanded = constraints.tighten(demanded, left_ms - min(_RETURN_MS, left_ms / 10))
            explain = demands.explained(asked.headers)
        except GearshiftError as error:
            age_s = time.monotonic() - asked.received_s
            self._journal.failed(message.model_name, error, age_s, asked.origin)
            raise
        request = InferRequest(
            served.name, body.inputs, body.rows, demanded, asked.received_s, asked.origin
        )
        return _Read(request, body, served.labels, explain)

    def _why_it_ended(self, asked: Asked, age_s: float) -> GearshiftError:
        if self.stopping:
            return NotReady("the server stopped before it could answer this request")
        left_ms = asked.remaining_ms
        if left_ms is not None and age_s * 1000 > left_ms - min(_AHEAD_MS, left_ms / 2):
            return DeadlinePassed("the deadline passed before there was an answer")
        return CallerLeft("the caller left")


def _encoded(read: _Read, response: InferResponse) -> Any:
    decision = response.decision
    assert decision.variant is not None  # it ran
    answer = messages.encode(
        read.body, read.request.model, decision.variant, response.outputs, read.labels
    )
    if read.explain:
        messages.explain(answer, decision.as_json())
    return answer


def _nobody_leaves() -> asyncio.Future[None]:
    """gRPC cancels the call of a caller who leaves: there is nothing to watch."""
    return asyncio.get_running_loop().create_future()
