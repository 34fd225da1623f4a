"""The infer endpoint of the Open Inference Protocol v2, as an ASGI callable: the hot path.

No request object, no response object and no middleware of its own: they would cost as much as
routing, queueing and answering do together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway import aside
from gateway.http import codings
from gateway.http.asgi import (
    ACCEPT_ENCODING,
    ANSWER,
    CHARGED_USD,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    INFER_ROUTE,
    INFER_ROUTE_OF_VERSION,
    JSON_LENGTH,
    KEEP,
    ORIGIN,
    RECEIVED_S,
    REQUEST_ID,
    Receive,
    Scope,
    Send,
    began,
    disconnected,
    read_body,
    read_headers,
    respond,
)
from gateway.journal import Journal
from gateway.messages import InferRequest, InferResponse, Origin
from gateway.recording import origins
from gateway.service import Service
from gateway.shed import Held, Shed, demands_nothing
from gateway.wire import classification, demands, problems, said, v2, v2_answer
from gateway.wire.problems import Headers
from router import constraints
from router.card import TensorSpec
from router.errors import CallerLeft, GearshiftError, NotReady, Overloaded

_LOG = logging.getLogger(__name__)

_Answer = tuple[int, Headers, bytes]
_Stated = tuple[tuple[str, str], ...]
# The key under which a scope holds what was asked for, as `Infer._keep` needs it.
_ASKED = "gearshift.asked"
# And the request, once it is read.
_REQUEST = "gearshift.request"


class _Stands(Exception):
    """A refusal of the same request still stands."""

    def __init__(self, held: Held[_Answer]) -> None:
        self.held = held


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the answer should look like."""

    id: str | None
    outputs: tuple[tuple[TensorSpec, bool], ...]
    classes: Mapping[str, int]
    labels: tuple[str, ...] | None
    explain: bool
    accepts: bytes | None


class Infer:
    """The infer path, as an ASGI callable: no request object, no middleware of its own."""

    def __init__(self, service: Service, journal: Journal, max_body_bytes: int) -> None:
        self._service = service
        self._journal = journal
        self._limit_bytes = max_body_bytes
        self._shed: Shed[_Answer] = Shed(lambda: service.left)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parameters = scope["path_params"]
        model: str = parameters["model"]
        own, stated = read_headers(scope)
        route = INFER_ROUTE_OF_VERSION if "version" in parameters else INFER_ROUTE
        began(scope, own, route, self._journal)
        try:
            status, headers, body = await self._answer(model, scope, receive, own, stated)
        except CallerLeft:
            return
        except _Stands as stands:
            stands.held.count()
            status, headers, body = stands.held.answer
            if scope[ORIGIN].marks is not None:  # it is counted, and no trace of it recorded
                scope[ORIGIN] = scope[ORIGIN]._replace(marks=None)
        except GearshiftError as error:
            status, headers, body = problems.of(error)
            if type(error) is Overloaded:
                self._keep(model, error, (status, headers, body), scope)
        except asyncio.CancelledError:
            # By the server alone, when a stop has waited for this request as long as it may.
            stopped = NotReady("the server stopped before it could answer this request")
            self._journal.failed(model, stopped, 0.0, scope[ORIGIN], scope.get(_REQUEST))
            status, headers, body = problems.of(stopped)
        except Exception:
            _LOG.exception("a request for %s failed", model, extra=origins.logged(scope[ORIGIN]))
            unexpected = GearshiftError("an unexpected error; the server's log says more")
            self._journal.failed(model, unexpected, 0.0, scope[ORIGIN], scope.get(_REQUEST))
            status, headers, body = problems.of(unexpected)
        # Not added to what was kept of a refusal: each has a name of its own.
        headers = [*headers, *said.of_origin(scope[ORIGIN])]
        # Present where our own server runs the app, which writes the answer in one piece.
        # Taken out: what it is bound to holds the scope in turn.
        whole, _ = scope.pop(ANSWER, None), scope.pop(KEEP, None)
        if whole is None or not await whole(status, headers, body):
            await respond(send, status, headers, body)

    def _keep(self, model: str, error: Overloaded, answer: _Answer, scope: Scope) -> None:
        """Keep a refusal for requests like this one, if its body has no part in it."""
        asked = scope.get(_ASKED)
        if asked is None or not demands_nothing(*asked[1:]):
            return
        kind, _, json_length = asked
        count = self._journal.shed(model, error, scope[ORIGIN], constraints.parse(kind[2]))
        held = self._shed.keep(kind, error, answer, count, time.monotonic())
        # Present where our own server runs the app, which knows the request's bytes.
        keep = scope.get(KEEP)
        if keep is not None:
            keep(held.copy(), json_length)

    async def _answer(
        self, model: str, scope: Scope, receive: Receive, own: dict[bytes, bytes], stated: _Stated
    ) -> _Answer:
        came_s = time.monotonic()
        try:
            request, wanted = await self._read(model, scope, receive, own, stated)
        except GearshiftError as error:
            self._journal.failed(model, error, time.monotonic() - came_s, scope[ORIGIN])
            raise
        scope[_REQUEST] = request
        parsed_s = time.monotonic()
        marks = request.origin.marks
        if marks is not None:
            marks.received_s, marks.parsed_s = request.received_s, parsed_s
        response = await self._service.infer(request, partial(disconnected, receive))
        parse_ms = (parsed_s - request.received_s) * 1000
        try:
            if v2_answer.is_long(response.outputs, wanted.outputs):
                answer = await aside.run(_encoded, request, response, wanted, parse_ms)
            else:
                answer = _encoded(request, response, wanted, parse_ms)
        except GearshiftError as error:
            self._journal.failed(
                model, error, time.monotonic() - request.received_s, request.origin, request
            )
            raise
        if wanted.accepts is not None and len(answer[2]) >= codings.LEAST_BYTES:
            answer = await _coded(answer, wanted.accepts)
        self._service.sending(request, response)
        scope[CHARGED_USD] = response.cost_usd_per_million / 1e6
        return answer

    async def _read(
        self,
        model: str,
        scope: Scope,
        receive: Receive,
        own: dict[bytes, bytes],
        headers: _Stated,
    ) -> tuple[InferRequest, _Wanted]:
        served = self._service.fleet.model(model)
        content = await read_body(receive, own.get(CONTENT_LENGTH), self._limit_bytes)
        # Absent when the app runs under another server than ours.
        received_s: float = scope.get(RECEIVED_S) or time.monotonic()
        length = own.get(JSON_LENGTH)
        version = scope["path_params"].get("version")
        coding = own.get(CONTENT_ENCODING)
        if coding is not None and coding != codings.IDENTITY:
            content = await aside.run(codings.inflate, content, coding, self._limit_bytes)
        else:
            self._stands(model, version, headers, own, content, scope, received_s)
        if v2.is_long(content, length, served.inputs_by_name):
            body = await aside.run(
                v2.decode, content, length, served.inputs_by_name, served.outputs_by_name
            )
        else:
            body = v2.decode(content, length, served.inputs_by_name, served.outputs_by_name)
        v2.check_sizes(body.inputs, served.equal_sizes)
        demanded = demands.of(served, headers, body.parameters, version)
        origin: Origin = scope[ORIGIN]
        if body.id is not None and REQUEST_ID not in own and origins.named(body.id):
            origin = scope[ORIGIN] = origin._replace(id=body.id)
        request = InferRequest(model, body.inputs, body.rows, demanded, received_s, origin)
        explain = demands.explained(headers)
        accepts = own.get(ACCEPT_ENCODING)
        return request, _Wanted(
            body.id, body.outputs, body.classes, served.labels, explain, accepts
        )

    def _stands(
        self,
        model: str,
        version: str | None,
        headers: _Stated,
        own: dict[bytes, bytes],
        content: bytes,
        scope: Scope,
        received_s: float,
    ) -> None:
        """Raises:
        _Stands: a refusal of the same request still stands.
        """
        # Whoever is refused is counted as who it is.
        kind = model, version, headers, scope[ORIGIN].key, scope[ORIGIN].tenant
        length = own.get(JSON_LENGTH, b"")
        json_length = int(length) if length.isdigit() and len(length) <= 10 else None
        scope[_ASKED] = kind, content, json_length
        if self._shed.any(received_s) and demands_nothing(content, json_length):
            held = self._shed.find(kind, received_s)
            if held is not None:
                raise _Stands(held)


async def _coded(answer: _Answer, accepts: bytes) -> _Answer:
    """`answer` in a coding that its caller accepts, if any."""
    coding = codings.chosen(accepts)
    if coding is None:
        return answer
    status, headers, body = answer
    body = await aside.run(codings.deflated, body, coding)
    kept = [header for header in headers if header[0] != CONTENT_LENGTH]
    return (
        status,
        [
            *kept,
            (CONTENT_LENGTH, b"%d" % len(body)),
            (CONTENT_ENCODING, coding.encode()),
            (b"vary", ACCEPT_ENCODING),
        ],
        body,
    )


def _encoded(
    request: InferRequest, response: InferResponse, wanted: _Wanted, parse_ms: float
) -> tuple[int, Headers, bytes]:
    decision = response.decision
    head: dict[str, Any] = {"model_name": request.model, "model_version": decision.variant}
    if wanted.id is not None:
        head["id"] = wanted.id
    if wanted.explain:
        head["parameters"] = {"gearshift_decision": decision.as_json()}
    outputs, tensors = wanted.outputs, response.outputs
    if wanted.classes:
        outputs, tensors = classification.applied(outputs, tensors, wanted.classes, wanted.labels)
    body, json_length = v2_answer.encode(head, tensors, outputs)
    headers = said.of(response, parse_ms)
    headers.append((b"content-length", b"%d" % len(body)))
    if json_length is None:
        headers.append((b"content-type", b"application/json"))
    else:
        headers.append((b"content-type", b"application/octet-stream"))
        headers.append((JSON_LENGTH, b"%d" % json_length))
    return 200, headers, body
