"""The Open Inference Protocol v2 over REST, with Gearshift's constraints beside it.

    GET  /v2                                  server metadata
    GET  /v2/health/live, /v2/health/ready
    GET  /v2/models/M[/versions/V]            metadata; a version is a variant, or an alias of one
    GET  /v2/models/M[/versions/V]/ready
    GET  /v2/models/M[/versions/V]/config     of the model configuration extension
    GET  /v2/models[/M[/versions/V]]/stats    of the statistics extension; of this process
    POST /v2/models/M[/versions/V]/infer      a version pins the variant
    POST /v2/models/M/decide                  ours: the decision alone, nothing is run

Errors are problem+json with the member `error`, which is what v2 clients read. With
`Gearshift-Explain: true` the whole decision is the answer's `parameters.gearshift_decision`:
`parameters` is where the protocol lets a server say more, and clients skip keys they do not know.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.routing import Route

from gateway import aside
from gateway.http import codings
from gateway.http.asgi import (
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    INFER_ROUTE,
    INFER_ROUTE_OF_VERSION,
    read_body,
    read_headers,
)
from gateway.http.infer import Infer
from gateway.lifecycle.fleet import ServedModel
from gateway.protocols import Parts
from gateway.statistics import VariantStatistics
from gateway.wire import described, v2
from router import constraints
from router.errors import InvalidRequest, NotReady

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"


def mount(app: FastAPI, parts: Parts) -> None:
    """Add every path; infer comes first, so that no other route is tried before it."""
    infer = Infer(parts.service, parts.journal, parts.settings.max_body_bytes)
    app.router.routes[:0] = [
        Route(INFER_ROUTE, infer, methods=["POST"]),
        Route(INFER_ROUTE_OF_VERSION, infer, methods=["POST"]),
    ]
    _mount_metadata(app, parts)

    @app.post(_MODEL + "/decide", tags=["v2"], summary="The decision for a request, not run")
    async def decide(model: str, request: Request) -> JSONResponse:
        """200 with the decision, whatever its verdict: being refused is an answer here.

        The body is optional: a JSON object with `parameters` as for infer, and `rows` (1), or a
        whole infer request, whose first input says how many rows.
        """
        own, headers = read_headers(request.scope)
        text = await read_body(
            request.receive, own.get(CONTENT_LENGTH), parts.settings.max_body_bytes
        )
        coding = own.get(CONTENT_ENCODING)
        if coding is not None and coding != codings.IDENTITY:
            limit = parts.settings.max_body_bytes
            text = await aside.run(codings.inflate, text, coding, limit)
        document = v2.parse_object(text) if text else {}
        v2.only_known(document, "rows")
        parameters = v2.members("parameters", document.get("parameters"))
        demands = constraints.parse(headers, parameters)
        decision = parts.service.decide(model, demands, _rows(document))
        return JSONResponse(decision.as_json())


def _rows(document: dict[str, Any]) -> int:
    """How many rows the request to decide has."""
    field, rows = "rows", document.get("rows", 1)
    inputs = document.get("inputs")
    if inputs:
        field = "inputs[0].shape"
        try:
            rows = inputs[0]["shape"][0]
        except (TypeError, KeyError, IndexError):
            rows = None
    if type(rows) is not int or rows < 1:
        raise InvalidRequest(field, rows, "a number of rows from 1")
    return rows


def _statistics(each: list[VariantStatistics]) -> JSONResponse:
    return JSONResponse({"model_stats": [one.as_json() for one in each]})


def _mount_metadata(app: FastAPI, parts: Parts) -> None:
    service = parts.service
    max_batch = parts.settings.max_batch

    def told(model: ServedModel, *variants: str) -> list[VariantStatistics]:
        return parts.metrics.statistics.of(model.name, variants or sorted(model.cards))

    @app.get("/v2", tags=["v2"], summary="Server metadata")
    async def server() -> JSONResponse:
        return JSONResponse(described.server())

    @app.get("/v2/health/live", tags=["v2"], summary="Whether the process lives")
    async def live() -> JSONResponse:
        return JSONResponse({"live": service.live}, 200 if service.live else 503)

    @app.get("/v2/health/ready", tags=["v2"], summary="Whether every model can be served")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    # Before the paths that take any model's name: one called "stats" would be no model's metadata.
    @app.get("/v2/models/stats", tags=["v2"], summary="What every variant did")
    async def all_statistics() -> JSONResponse:
        return _statistics([one for model in service.fleet.models() for one in told(model)])

    @app.get(_MODEL + "/stats", tags=["v2"], summary="What the variants of a model did")
    async def model_statistics(model: str) -> JSONResponse:
        return _statistics(told(service.fleet.model(model)))

    @app.get(_VERSION + "/stats", tags=["v2"], summary="What a variant did")
    async def version_statistics(model: str, version: str) -> JSONResponse:
        served = service.fleet.model(model)
        return _statistics(told(served, served.resolve(version).variant))

    @app.get(_MODEL + "/config", tags=["v2"], summary="Model configuration")
    async def model_config(model: str) -> JSONResponse:
        return JSONResponse(described.config(service.fleet.model(model), max_batch))

    @app.get(_VERSION + "/config", tags=["v2"], summary="Model configuration; of every variant")
    async def version_config(model: str, version: str) -> JSONResponse:
        served = service.fleet.model(model)
        served.resolve(version)
        return JSONResponse(described.config(served, max_batch))

    @app.get(_MODEL, tags=["v2"], summary="Model metadata; versions are its variants")
    async def model_metadata(model: str) -> JSONResponse:
        return JSONResponse(described.model(service.fleet.model(model)))

    @app.get(_VERSION, tags=["v2"], summary="Variant metadata")
    async def version_metadata(model: str, version: str) -> JSONResponse:
        return JSONResponse(described.model(service.fleet.model(model), version))

    @app.get(_MODEL + "/ready", tags=["v2"], summary="Whether a variant can serve")
    async def model_ready(model: str) -> JSONResponse:
        ready = bool(service.fleet.model(model).ready) and not service.leaving
        return JSONResponse({"name": model, "ready": ready}, 200 if ready else 503)

    @app.get(_VERSION + "/ready", tags=["v2"], summary="Whether this variant can serve")
    async def version_ready(model: str, version: str) -> JSONResponse:
        served = service.fleet.model(model)
        variant = served.resolve(version).variant
        if not served.is_ready(variant):
            state = served.states[variant]
            raise NotReady(f"{model}/{variant} is {state.state}{state.why and ': '}{state.why}")
        service.check_healthy(model, variant)
        return JSONResponse({"name": model, "version": variant, "ready": True})
