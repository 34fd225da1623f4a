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
from pathlib import Path
from typing import IO, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gateway.http import rollout
from gateway.lifecycle.archive import MOST_BYTES
from gateway.protocols import Parts
from gateway.settings import SettingsError
from router.errors import InvalidRequest, TooLarge

_VARIANT = "/admin/models/{model}/variants/{variant}"
_TAGS: dict[str, Any] = {"tags": ["variants"]}
_WRITE_BYTES = 1 << 20


def mount_admin(app: FastAPI, parts: Parts) -> None:
    """Add the paths."""
    operator = parts.service.operator
    rollout.add(app, operator, "/admin", **_TAGS)

    @app.put(_VARIANT, summary="A new build of a variant, as a tar archive", **_TAGS)
    async def receive(model: str, variant: str, request: Request) -> JSONResponse:
        file = await asyncio.to_thread(_scratch)
        try:
            await _keep(request, file)
            await operator.receive(model, variant, Path(file.name))
        finally:
            await asyncio.to_thread(file.close)
        return JSONResponse(operator.describe(model))

    @app.delete(_VARIANT, summary="Delete a variant from the store", **_TAGS)
    async def remove(model: str, variant: str) -> JSONResponse:
        await operator.remove(model, variant)
        return JSONResponse({})

    @app.post("/admin/rescan", summary="Look at the store now", **_TAGS)
    async def rescan() -> JSONResponse:
        await operator.rescan()
        return JSONResponse({"models": [operator.describe(name) for name in operator.models()]})

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
