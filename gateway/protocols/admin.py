"""The admin port: what operators alone may call, on a listener of its own.

Every route under `/admin` here, and those that other protocols mount with `mount_admin`, is behind
one guard: `gateway.trust.guard`. The port is printed at start as "admin on URL".
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway import protocols
from gateway.about import VERSION
from gateway.http import errors
from gateway.http.asgi import named
from gateway.http.limits import limited
from gateway.processes import ports
from gateway.protocols import Parts
from gateway.service import Service
from gateway.settings import shown
from gateway.trust.guard import Guard

# The admin API ends last: whoever drains the server wants to watch it.
_STOP_S = 1
_MOST_CONNECTIONS = 64


def listen(parts: Parts) -> AbstractAsyncContextManager[None]:
    """Bind the admin port, unless it is off.

    Raises:
        gateway.processes.ports.PortUnusable: it cannot be had.
    """
    settings = parts.settings
    port = settings.admin_port
    if port == "off":
        return contextlib.nullcontext()
    if port is None:
        port = settings.port + 2 if settings.port else 0
    return _serving(parts, ports.bind(settings.admin_host, port, shared=parts.place is not None))


def mount_admin(app: FastAPI, parts: Parts) -> None:
    """Add the paths that belong to no other part."""

    @app.get("/admin/state", tags=["state"], summary="Everything there is to know, as JSON")
    async def state() -> JSONResponse:
        """Of this process: models, keys and what they used, settings. No secret is in it."""
        service, operator = parts.service, parts.service.operator
        return JSONResponse(
            {
                "version": VERSION,
                "worker": None if parts.place is None else parts.place.order.number,
                "ready": service.ready,
                "stopping": service.stopping,
                "lanes": service.lanes_report(),
                "store": _store(service),
                "left_out": list(service.fleet.problems),
                "models": {name: operator.describe(name) for name in operator.models()},
                "keys": parts.access.report(),
                "settings": shown(service.settings),
            }
        )


def _store(service: Service) -> dict[str, object]:
    """Where the variants come from, and why that cannot be read now, if it cannot."""
    source, settings = service.source, service.settings
    if source is None:
        return {"models": str(settings.models)}
    return {"models": source.url, "copy": str(source.folder), "unreadable": source.unreadable}


def create_admin_app(parts: Parts) -> FastAPI:
    """The admin API with every protocol's routes."""
    app = FastAPI(
        title="Gearshift admin",
        version=VERSION,
        summary="Variants, keys and settings of a running server.",
        openapi_url="/admin/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    protocols.mount_admin_all(app, parts)
    errors.install(app)
    return app


class _Server(uvicorn.Server):
    """One that leaves the process's signals to the server of the public port."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: the public server's handlers end this one too."""
        yield


@contextlib.asynccontextmanager
async def _serving(parts: Parts, listener: socket.socket) -> AsyncIterator[None]:
    settings = parts.settings
    secured = parts.tls
    url = ports.url_of(settings.admin_host, listener, tls=secured is not None)
    guard = Guard(parts.access, parts.journal, ports.is_loopback(settings.admin_host), admin=True)
    app = create_admin_app(parts)

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        await guard(app, scope, receive, named(scope, send))

    config = uvicorn.Config(
        behind,
        http=limited(
            settings.max_header_bytes,
            settings.read_timeout_seconds,
            write_timeout_seconds=settings.write_timeout_seconds,
            max_connections=_MOST_CONNECTIONS,
            large_bodies=True,
        ),
        timeout_keep_alive=math.ceil(settings.idle_timeout_seconds),
        ssl_context_factory=None if secured is None else secured.accepting,
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_S,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    print(f"admin on {url}", flush=True)
    try:
        yield
    finally:
        server.should_exit = True
        await running
