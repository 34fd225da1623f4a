"""The infer endpoint of the Open Inference Protocol v2, as an ASGI callable: the hot path.

No request object, no response object and no middleware of its own: they would cost as much as
routing, queueing and answering do together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway import demands, problems, said, v2
from gateway.asgi import (
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    JSON_LENGTH,
    Receive,
    Scope,
    Send,
    disconnected,
    read_body,
    read_headers,
    respond,
)
from gateway.messages import InferRequest, InferResponse
from gateway.metrics import Metrics
from gateway.problems import Headers
from gateway.service import Service
from router.card import TensorSpec
from router.errors import CallerLeft, GearshiftError, InvalidRequest, NotReady

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the answer should look like."""

    id: str | None
    outputs: tuple[tuple[TensorSpec, bool], ...]
    explain: bool


class Infer:
    """The infer path, as an ASGI callable: no request object, no middleware of its own."""

    def __init__(self, service: Service, metrics: Metrics, max_body_bytes: int) -> None:
        self._service = service
        self._metrics = metrics
        self._limit_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model: str = scope["path_params"]["model"]
        try:
            status, headers, body = await self._answer(model, scope, receive)
        except CallerLeft:
            return
        except GearshiftError as error:
            status, headers, body = problems.of(error)
        except asyncio.CancelledError:
            # By the server alone, when a stop has waited for this request as long as it may.
            stopped = NotReady("the server stopped before it could answer this request")
            self._metrics.failed(model, stopped, 0.0)
            status, headers, body = problems.of(stopped)
        except Exception:
            _LOG.exception("a request for %s failed", model)
            unexpected = GearshiftError("an unexpected error; the server's log says more")
            self._metrics.failed(model, unexpected, 0.0)
            status, headers, body = problems.of(unexpected)
        # Present where our own server runs the app, which writes the answer in one piece.
        whole = scope.get("gearshift.answer")
        if whole is None or not await whole(status, headers, body):
            await respond(send, status, headers, body)

    async def _answer(
        self, model: str, scope: Scope, receive: Receive
    ) -> tuple[int, Headers, bytes]:
        came_s = time.monotonic()
        try:
            request, wanted = await self._read(model, scope, receive)
        except GearshiftError as error:
            self._metrics.failed(model, error, time.monotonic() - came_s)
            raise
        parsed_s = time.monotonic()
        response = await self._service.infer(request, partial(disconnected, receive))
        answer = _encoded(request, response, wanted, (parsed_s - request.received_s) * 1000)
        self._service.sending(request, response)
        return answer

    async def _read(
        self, model: str, scope: Scope, receive: Receive
    ) -> tuple[InferRequest, _Wanted]:
        served = self._service.fleet.model(model)
        own, headers = read_headers(scope)
        if own.get(CONTENT_ENCODING, b"identity") != b"identity":
            encoding = own[CONTENT_ENCODING].decode("latin-1")
            raise InvalidRequest("Content-Encoding", encoding, "none; send the body as it is")
        content = await read_body(receive, own.get(CONTENT_LENGTH), self._limit_bytes)
        # Absent when the app runs under another server than ours.
        received_s: float = scope.get("gearshift.received_s") or time.monotonic()
        body = v2.decode(
            content,
            own.get(JSON_LENGTH),
            served.inputs_by_name,
            served.outputs_by_name,
        )
        v2.check_sizes(body.inputs, served.equal_sizes)
        version = scope["path_params"].get("version")
        demanded = demands.of(served, headers, body.parameters, version)
        request = InferRequest(model, body.inputs, body.rows, demanded, received_s)
        return request, _Wanted(body.id, body.outputs, demands.explained(headers))


def _encoded(
    request: InferRequest, response: InferResponse, wanted: _Wanted, parse_ms: float
) -> tuple[int, Headers, bytes]:
    decision = response.decision
    head: dict[str, Any] = {"model_name": request.model, "model_version": decision.variant}
    if wanted.id is not None:
        head["id"] = wanted.id
    if wanted.explain:
        head["parameters"] = {"gearshift_decision": decision.as_json()}
    body, json_length = v2.encode(head, response.outputs, wanted.outputs)
    headers = said.of(response, parse_ms)
    headers.append((b"content-length", b"%d" % len(body)))
    if json_length is None:
        headers.append((b"content-type", b"application/json"))
    else:
        headers.append((b"content-type", b"application/octet-stream"))
        headers.append((JSON_LENGTH, b"%d" % json_length))
    return 200, headers, body
