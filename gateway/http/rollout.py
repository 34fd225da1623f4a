"""What an operator may change of a rollout, as routes: on the admin port, and for the console."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gateway.http.asgi import read_body
from gateway.lifecycle.operator import Operator
from gateway.wire import v2
from router.card import NAME_PATTERN
from router.errors import InvalidRequest

_MOST_JSON_BYTES = 64 << 10


def add(app: FastAPI, operator: Operator, prefix: str, **options: Any) -> None:
    """Add the paths under `prefix`; each answers, when it has happened, with the model as it is.

    Args:
        options: of every route, as FastAPI has them.
    """
    model_path = prefix + "/models/{model}"
    variant_path = model_path + "/variants/{variant}"

    async def done(model: str, change: Awaitable[object]) -> JSONResponse:
        await change
        return JSONResponse(operator.describe(model))

    @app.get(prefix + "/models", summary="Every model", **options)
    async def every() -> JSONResponse:
        return JSONResponse({"models": [operator.describe(name) for name in operator.models()]})

    @app.get(model_path, summary="One model", **options)
    async def one(model: str) -> JSONResponse:
        return JSONResponse(operator.describe(model))

    @app.post(model_path + "/load", summary="Serve a model", **options)
    async def load(model: str) -> JSONResponse:
        return await done(model, operator.load(model))

    @app.post(model_path + "/unload", summary="Take a model out of service", **options)
    async def unload(model: str) -> JSONResponse:
        return await done(model, operator.unload(model))

    @app.put(model_path + "/pin", summary="Let one variant answer whoever names none", **options)
    async def pin(model: str, request: Request) -> JSONResponse:
        return await done(model, operator.pin(model, await _name(request, "variant")))

    @app.delete(model_path + "/pin", summary="Pin none", **options)
    async def unpin(model: str) -> JSONResponse:
        return await done(model, operator.pin(model, None))

    alias_path = model_path + "/aliases/{alias}"

    @app.put(alias_path, summary="Give a variant a further name", **options)
    async def alias(model: str, alias: str, request: Request) -> JSONResponse:
        return await done(model, operator.alias(model, alias, await _name(request, "variant")))

    @app.delete(alias_path, summary="Take a name away", **options)
    async def no_alias(model: str, alias: str) -> JSONResponse:
        return await done(model, operator.alias(model, alias, None))

    @app.post(variant_path + "/enable", summary="Let a variant serve as the others do", **options)
    async def enable(model: str, variant: str) -> JSONResponse:
        return await done(model, operator.enable(model, variant))

    @app.post(variant_path + "/disable", summary="Take a variant out of service", **options)
    async def disable(model: str, variant: str) -> JSONResponse:
        return await done(model, operator.disable(model, variant))

    @app.post(variant_path + "/canary", summary="Give a variant a share of requests", **options)
    async def canary(model: str, variant: str, request: Request) -> JSONResponse:
        return await done(model, operator.canary(model, variant, await _share(request)))

    @app.post(variant_path + "/shadow", summary="Run a share of requests on it, unseen", **options)
    async def shadow(model: str, variant: str, request: Request) -> JSONResponse:
        return await done(model, operator.shadow(model, variant, await _share(request)))


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
