"""The console: a page at `/` that shows what is served and why, and what it asks for.

    GET /                       the page
    GET /console/FILE           its scripts and styles, and the charts' library if it is installed
    GET /console/state          what is served now, by which lanes, and what waits
    GET /console/history        ?minutes=15: what became of requests, in steps of five seconds
    GET /console/decisions      ?since=ID&model=M&outcome=O&limit=100: the latest, newest first
        /console/admin/...      what an operator may change, as under /admin on the admin port

The page and its files need no key: it asks for one where there are any. Nothing but this server is
asked for anything. With the setting `console`, the last of these paths, or all, are left out.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response

from gateway import aside
from gateway.about import VERSION
from gateway.console import files
from gateway.console.decisions import OK
from gateway.console.files import File
from gateway.console.history import MINUTES
from gateway.http import codings, rollout
from gateway.http.asgi import CALLER
from gateway.protocols import Parts
from gateway.trust.access import ANYBODY
from gateway.trust.forwarded import passed_on
from gateway.wire import problems
from router.card import NAME_PATTERN
from router.errors import InvalidRequest

_READ = ["GET", "HEAD"]
_MOST_DECISIONS = 500
_OUTCOMES = (OK, *sorted(error.code for error in problems.STATUSES))
_SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_PAGE_HEADERS = {
    **_SAFE,
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def listen(parts: Parts) -> AbstractAsyncContextManager[None]:
    """Look at the lanes again and again, and answer the other workers."""
    return contextlib.nullcontext() if parts.console is None else parts.console.running()


def mount(app: FastAPI, parts: Parts) -> None:
    """Add the paths, unless the console is off."""
    console = parts.console
    if console is None:
        return
    named = files.everything()
    page = named.pop(files.PAGE, None)
    if page is not None:

        @app.api_route("/", methods=_READ, include_in_schema=False)
        async def index(request: Request) -> Response:
            return _file(page, request, _PAGE_HEADERS)

    _mount_data(app, parts, charts=files.CHARTS in named)
    if parts.settings.console == "on":
        rollout.add(app, parts.service.operator, "/console/admin", include_in_schema=False)
    for name, file in named.items():
        _mount_file(app, name, file)


def _mount_file(app: FastAPI, name: str, file: File) -> None:
    @app.api_route(f"/console/{name}", methods=_READ, include_in_schema=False)
    async def one(request: Request) -> Response:
        return _file(file, request, _SAFE)


def _mount_data(app: FastAPI, parts: Parts, *, charts: bool) -> None:
    console, access = parts.console, parts.access
    assert console is not None
    changes = parts.settings.console == "on"

    @app.get("/console/state", include_in_schema=False)
    async def state(request: Request) -> Response:
        caller = request.scope.get(CALLER, ANYBODY)
        forwarded = passed_on(name for name, _ in request.scope["headers"])
        own = {
            "version": VERSION,
            "needs_key": not access.open,
            "admin": changes and access.may(caller, "admin", forwarded=forwarded),
            "charts": charts,
        }
        return await _json({**own, **await console.state()}, request)

    @app.get("/console/history", include_in_schema=False)
    async def history(request: Request) -> Response:
        return await _json(await console.history(_number(request, "minutes", MINUTES)), request)

    @app.get("/console/decisions", include_in_schema=False)
    async def decisions(request: Request) -> Response:
        since = _number(request, "since", 0, least=0)
        limit = min(_number(request, "limit", 100), _MOST_DECISIONS)
        model = request.query_params.get("model")
        if model is not None and model not in parts.service.fleet.everything():
            raise InvalidRequest("model", model, f"a model of the store, matching {NAME_PATTERN}")
        outcome = request.query_params.get("outcome")
        if outcome is not None and outcome not in _OUTCOMES:
            raise InvalidRequest("outcome", outcome, "one of " + ", ".join(_OUTCOMES))
        return await _json(await console.decisions(since, model, outcome, limit), request)


def _number(request: Request, name: str, default: int, least: int = 1) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or int(text) < least:
        raise InvalidRequest(name, text, f"a whole number from {least} on")
    return int(text)


async def _json(value: dict[str, Any], request: Request) -> Response:
    headers = {**_SAFE, "cache-control": "no-store", "vary": "accept-encoding"}
    body = orjson.dumps(value)
    coding = codings.chosen(_accepts(request))
    if coding is not None and len(body) >= codings.LEAST_BYTES:
        body = await aside.run(codings.deflated, body, coding)
        headers["content-encoding"] = coding
    return Response(body, headers=headers, media_type="application/json")


def _accepts(request: Request) -> bytes:
    return request.headers.get("accept-encoding", "").encode("latin-1")


def _file(file: File, request: Request, headers: dict[str, str]) -> Response:
    headers = {**headers, "cache-control": "no-cache", "etag": file.tag, "vary": "accept-encoding"}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers=headers)
    headers["content-type"] = file.media_type
    content = file.content
    if file.zipped and codings.takes(_accepts(request), "gzip"):
        content = file.zipped
        headers["content-encoding"] = "gzip"
    return Response(content, headers=headers)
