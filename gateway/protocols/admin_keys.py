"""API keys on the admin port: `/admin/keys`. A key's text is in the answer that made it alone."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.http.asgi import read_body
from gateway.protocols import Parts
from gateway.wire import v2

_MOST_BYTES = 64 << 10
_FIELDS = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "tenant": {"type": "string"},
        "scopes": {"type": "array", "items": {"enum": ["infer", "read", "admin"]}},
        "requests_per_second": {"type": ["number", "null"]},
        "burst": {"type": ["integer", "null"]},
        "concurrency": {"type": ["integer", "null"]},
        "budget_usd_per_day": {"type": ["number", "null"]},
    },
}
_BODY = {"requestBody": {"content": {"application/json": {"schema": _FIELDS}}}}


def mount_admin(app: FastAPI, parts: Parts) -> None:
    """Add the paths."""
    access = parts.access

    @app.get("/admin/keys", tags=["keys"], summary="Every key, and what it used today")
    async def every() -> JSONResponse:
        return JSONResponse({"keys": access.report()})

    @app.post("/admin/keys", tags=["keys"], summary="A new key", openapi_extra=_BODY)
    async def create(request: Request) -> JSONResponse:
        """201 with the key's text in `key`, shown this once."""
        key, text = await access.create_key(await _object(request))
        return JSONResponse({**key.as_json(), "key": text}, 201)

    @app.patch("/admin/keys/{name}", tags=["keys"], summary="Other limits", openapi_extra=_BODY)
    async def change(name: str, request: Request) -> JSONResponse:
        """200 with the key as it is now; what the body does not name stays."""
        key = await access.change_key(name, await _object(request))
        if key is None:
            raise _absent(name)
        return JSONResponse(key.as_json())

    @app.delete("/admin/keys/{name}", tags=["keys"], summary="Revoke a key")
    async def revoke(name: str) -> JSONResponse:
        """200 when it opens nothing any more."""
        if not await access.revoke_key(name):
            raise _absent(name)
        return JSONResponse({"revoked": name})


async def _object(request: Request) -> dict[str, Any]:
    length = request.headers.get("content-length", "").encode() or None
    return v2.parse_object(await read_body(request.receive, length, _MOST_BYTES))


def _absent(name: str) -> HTTPException:
    return HTTPException(404, f"no key in use is named {name}")
