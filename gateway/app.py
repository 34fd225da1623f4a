"""The one place where the parts are joined: settings, metrics, service, protocols, errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import cached_property, lru_cache

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import problems, protocols
from gateway.about import VERSION
from gateway.access import Access
from gateway.metrics import Metrics
from gateway.protocols import Parts
from gateway.service import Service
from gateway.settings import Settings
from router.errors import GearshiftError

_LOG = logging.getLogger(__name__)


class _App(FastAPI):
    """FastAPI, but a route around a raw ASGI callable is tried first, outside its middleware.

    Such a route answers its own errors, so that it needs none of it; together the layers cost as
    much as a routing decision.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As FastAPI's, behind the direct routes."""
        if scope["type"] == "http" and scope["method"] == "POST":
            found = self._direct(scope["path"])
            if found is not None:
                app, scope["path_params"] = found
                await app(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    @cached_property
    def _direct(self) -> Callable[[str], tuple[ASGIApp, dict[str, str]] | None]:
        direct = [
            route for route in self.routes if type(route) is Route and route.app is route.endpoint
        ]

        # A server's callers use few paths, and matching one costs as much as viewing its tensors.
        # What is kept is bounded: paths are the callers' to choose.
        @lru_cache(maxsize=1024)
        def find(path: str) -> tuple[ASGIApp, dict[str, str]] | None:
            for route in direct:
                match, more = route.matches(
                    {"type": "http", "method": "POST", "path": path, "headers": []}
                )
                if match is Match.FULL:
                    return route.app, more["path_params"]
            return None

        return find


def create_app(settings: Settings, on_settled: Callable[[Service], None] | None = None) -> FastAPI:
    """The application that serves the store of `settings`.

    The port opens before the variants are loaded, so that health can be asked for meanwhile.

    Args:
        on_settled: called once, when every variant is loaded and warm or has failed.

    Raises:
        gateway.catalog.StoreUnusable: the store is missing, or nothing in it can be served.
        gateway.settings.SettingsError: the memory limit does not hold one variant of every model.
    """
    metrics = Metrics()
    service = Service(settings, metrics)
    parts = Parts(service, metrics, settings, Access())

    async def start() -> None:
        try:
            await service.start()
        except Exception:
            _LOG.exception("the variants could not be loaded")
        if on_settled is not None:
            on_settled(service)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as listening:
            for listener in protocols.listeners(parts):
                await listening.enter_async_context(listener)
            starting = asyncio.create_task(start())
            yield
            await starting
            await service.stop()

    app = _App(
        title="Gearshift",
        version=VERSION,
        summary="Variants of a model behind one endpoint that shifts between them by request.",
        lifespan=lifespan,
        # The pages that FastAPI offers load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    protocols.mount_all(app, parts)
    app.add_exception_handler(GearshiftError, _refused)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _unexpected)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, GearshiftError)
    return _response(problems.of(error))


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    details = {
        404: f"nothing is at {path}",
        405: f"{path} does not take {request.method}",
    }
    headers = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
    detail = details.get(error.status_code, error.detail)
    return _response(problems.of_status(error.status_code, detail, headers))


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again for the server's log, so it is not logged here.
    del request, error
    unexpected = GearshiftError("an unexpected error; the server's log says more")
    return _response(problems.of(unexpected))


def _response(parts: tuple[int, problems.Headers, bytes]) -> Response:
    status, headers, body = parts
    response = Response(body, status)
    response.raw_headers = headers
    return response
