"""The model repository extension of the Open Inference Protocol v2, over REST.

    POST /v2/repository/index                 every variant in the store, its state and the reason
    POST /v2/repository/models/M/load         serve M: all that the store holds of it now
    POST /v2/repository/models/M/unload       take M out of service and out of memory

A model's versions are its variants. Whoever loads or unloads needs a key with the scope `admin`.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gateway.http.asgi import CONTENT_LENGTH, read_body, read_headers
from gateway.protocols import Parts
from gateway.wire import v2
from router.errors import InvalidRequest

_INDEX = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}
            }
        }
    }
}
_CHANGE = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"parameters": {"type": "object"}}}
            }
        }
    }
}


def mount(app: FastAPI, parts: Parts) -> None:
    """Add the paths."""
    operator = parts.service.operator

    async def body(request: Request) -> dict[str, Any]:
        own, _ = read_headers(request.scope)
        most = parts.settings.max_body_bytes
        text = await read_body(request.receive, own.get(CONTENT_LENGTH), most)
        return v2.parse_object(bytes(text)) if text else {}

    @app.post("/v2/repository/index", tags=["v2"], summary="The index", openapi_extra=_INDEX)
    async def index(request: Request) -> JSONResponse:
        """200 with every variant in the store, or with those that are ready."""
        ready = (await body(request)).get("ready", False)
        if not isinstance(ready, bool):
            raise InvalidRequest("ready", ready, "true or false")
        return JSONResponse([one._asdict() for one in operator.index(ready_only=ready)])

    @app.post(
        "/v2/repository/models/{model}/load",
        tags=["v2"],
        summary="Serve a model",
        openapi_extra=_CHANGE,
    )
    async def load(model: str, request: Request) -> JSONResponse:
        """200 when it serves; 503 with the reasons when nothing of it could be loaded."""
        given = await body(request)
        for key, value in v2.members("parameters", given.get("parameters")).items():
            expected = "none; models come from the store alone"
            raise InvalidRequest(f"parameters.{key}", type(value).__name__, expected)
        await operator.load(model)
        return JSONResponse({})

    @app.post(
        "/v2/repository/models/{model}/unload",
        tags=["v2"],
        summary="Take a model out of service",
        openapi_extra=_CHANGE,
    )
    async def unload(model: str, request: Request) -> JSONResponse:
        """200 when it is out of memory. No parameter changes that: no model depends on another."""
        v2.members("parameters", (await body(request)).get("parameters"))
        await operator.unload(model)
        return JSONResponse({})
