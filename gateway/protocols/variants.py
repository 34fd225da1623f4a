"""Models and variants on the admin port: what serves, and how that is changed while it does.

    GET    /admin/models                              every model, its variants and its rollout
    GET    /admin/models/M
    POST   /admin/models/M/load, /unload              serve it or not
    PUT    /admin/models/M/pin                        {"variant": V}: answers whoever names none
    DELETE /admin/models/M/pin
    PUT    /admin/models/M/aliases/A                  {"variant": V}
    DELETE /admin/models/M/aliases/A
    PUT    /admin/models/M/variants/V                 a tar archive: a new build of V
    DELETE /admin/models/M/variants/V                 deletes it from the store
    POST   /admin/models/M/variants/V/enable          serves as the others do
    POST   /admin/models/M/variants/V/disable
    POST   /admin/models/M/variants/V/canary          {"share": 0.05}
    POST   /admin/models/M/variants/V/shadow          {"share": 0.1}
    POST   /admin/rescan                              look at the store now
    POST   /admin/settings/reload                     read the settings again

Each answers when it has happened, with the model as it is then.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gateway.http.asgi import read_body
from gateway.lifecycle.archive import MOST_BYTES
from gateway.protocols import Parts
from gateway.settings import SettingsError
from gateway.wire import v2
from router.card import NAME_PATTERN
from router.errors import InvalidRequest, TooLarge

_MODEL = "/admin/models/{model}"
_VARIANT = _MODEL + "/variants/{variant}"
_TAGS: dict[str, Any] = {"tags": ["variants"]}
_WRITE_BYTES = 1 << 20
_MOST_JSON_BYTES = 64 << 10


def mount_admin(app: FastAPI, parts: Parts) -> None:
    """Add the paths."""
    operator = parts.service.operator

    async def done(model: str, change: Awaitable[object]) -> JSONResponse:
        await change
        return JSONResponse(operator.describe(model))

    @app.get("/admin/models", summary="Every model", **_TAGS)
    async def every() -> JSONResponse:
        return JSONResponse({"models": [operator.describe(name) for name in operator.models()]})

    @app.get(_MODEL, summary="One model", **_TAGS)
    async def one(model: str) -> JSONResponse:
        return JSONResponse(operator.describe(model))

    @app.post(_MODEL + "/load", summary="Serve a model", **_TAGS)
    async def load(model: str) -> JSONResponse:
        return await done(model, operator.load(model))

    @app.post(_MODEL + "/unload", summary="Take a model out of service", **_TAGS)
    async def unload(model: str) -> JSONResponse:
        return await done(model, operator.unload(model))

    @app.put(_MODEL + "/pin", summary="Let one variant answer whoever names none", **_TAGS)
    async def pin(model: str, request: Request) -> JSONResponse:
        return await done(model, operator.pin(model, await _name(request, "variant")))

    @app.delete(_MODEL + "/pin", summary="Pin none", **_TAGS)
    async def unpin(model: str) -> JSONResponse:
        return await done(model, operator.pin(model, None))

    @app.put(_MODEL + "/aliases/{alias}", summary="Give a variant a further name", **_TAGS)
    async def alias(model: str, alias: str, request: Request) -> JSONResponse:
        return await done(model, operator.alias(model, alias, await _name(request, "variant")))

    @app.delete(_MODEL + "/aliases/{alias}", summary="Take a name away", **_TAGS)
    async def no_alias(model: str, alias: str) -> JSONResponse:
        return await done(model, operator.alias(model, alias, None))

    _mount_variants(app, parts, done)

    @app.post("/admin/rescan", summary="Look at the store now", **_TAGS)
    async def rescan() -> JSONResponse:
        await operator.rescan()
        return await every()

    @app.post("/admin/settings/reload", tags=["settings"], summary="Read the settings again")
    async def reload() -> JSONResponse:
        """200 with what has changed, and what has and needs a restart; 400 where anything is not
        valid, the certificate too, and nothing has changed. This worker has read them when it
        answers; the others are told to, and say in the log what came of it."""
        try:
            told = parts.service.reload()
        except SettingsError as error:
            raise InvalidRequest.saying("settings", str(error)) from error
        others = 0 if parts.place is None else parts.place.reload_others()
        return JSONResponse(
            {
                "changed": list(told.changed),
                "needs_restart": list(told.restart),
                "certificate_read": told.certificate,
                "other_workers_told": others,
            }
        )


def _mount_variants(
    app: FastAPI, parts: Parts, done: Callable[[str, Awaitable[object]], Awaitable[JSONResponse]]
) -> None:
    operator = parts.service.operator

    @app.put(_VARIANT, summary="A new build of a variant, as a tar archive", **_TAGS)
    async def receive(model: str, variant: str, request: Request) -> JSONResponse:
        file = await asyncio.to_thread(_scratch)
        try:
            await _keep(request, file)
            return await done(model, operator.receive(model, variant, Path(file.name)))
        finally:
            await asyncio.to_thread(file.close)

    @app.delete(_VARIANT, summary="Delete a variant from the store", **_TAGS)
    async def remove(model: str, variant: str) -> JSONResponse:
        await operator.remove(model, variant)
        return JSONResponse({})

    @app.post(_VARIANT + "/enable", summary="Let a variant serve as the others do", **_TAGS)
    async def enable(model: str, variant: str) -> JSONResponse:
        return await done(model, operator.enable(model, variant))

    @app.post(_VARIANT + "/disable", summary="Take a variant out of service", **_TAGS)
    async def disable(model: str, variant: str) -> JSONResponse:
        return await done(model, operator.disable(model, variant))

    @app.post(_VARIANT + "/canary", summary="Give a variant a share of the requests", **_TAGS)
    async def canary(model: str, variant: str, request: Request) -> JSONResponse:
        return await done(model, operator.canary(model, variant, await _share(request)))

    @app.post(_VARIANT + "/shadow", summary="Run a share of the requests on it, unseen", **_TAGS)
    async def shadow(model: str, variant: str, request: Request) -> JSONResponse:
        return await done(model, operator.shadow(model, variant, await _share(request)))


def _scratch() -> IO[bytes]:
    return tempfile.NamedTemporaryFile(prefix="gearshift-")


async def _keep(request: Request, file: IO[bytes]) -> None:
    """Write the body into `file`; a disk that is slow keeps nobody else waiting."""
    size, pieces, held = 0, [], 0
    async for chunk in request.stream():
        size, held = size + len(chunk), held + len(chunk)
        if size > MOST_BYTES:
            raise TooLarge(f"the archive is over the limit of {MOST_BYTES} bytes")
        pieces.append(chunk)
        if held >= _WRITE_BYTES:
            await asyncio.to_thread(file.write, b"".join(pieces))
            pieces, held = [], 0
    await asyncio.to_thread(file.write, b"".join(pieces))
    await asyncio.to_thread(file.flush)


async def _given(request: Request, name: str) -> object:
    document = v2.parse_object(bytes(await read_body(request.receive, None, _MOST_JSON_BYTES)))
    for odd in document.keys() - {name}:
        raise InvalidRequest("body", odd, f"no members but {name}")
    return document.get(name)


async def _name(request: Request, field: str) -> str:
    name = await _given(request, field)
    if not isinstance(name, str):
        raise InvalidRequest(field, name, f"a variant's name, matching {NAME_PATTERN}")
    return name


async def _share(request: Request) -> float:
    share = await _given(request, "share")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InvalidRequest("share", share, "a number above 0 and up to 1")
    return float(share)
