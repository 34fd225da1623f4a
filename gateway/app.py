"""The one place where the parts are joined: settings, metrics, service, protocols, errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from functools import cached_property, lru_cache

from fastapi import FastAPI
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import protocols
from gateway.about import VERSION
from gateway.console.gathering import Console
from gateway.http import errors, openapi
from gateway.http.asgi import named
from gateway.journal import Journal
from gateway.lifecycle.reload import Reloaded
from gateway.logs.setup import reopen
from gateway.metrics import Metrics
from gateway.processes import ports
from gateway.processes.ending import Ending
from gateway.processes.worker import Place
from gateway.protocols import Parts
from gateway.recording.records import Records
from gateway.service import Service
from gateway.settings import Settings, SettingsError
from gateway.trust import tls
from gateway.trust.access import Access
from gateway.trust.guard import Guard
from gateway.trust.ledger import Ledger
from gateway.trust.tls import Tls

_LOG = logging.getLogger(__name__)


class App(FastAPI):
    """FastAPI behind the guard, but a route around a raw ASGI callable is tried first.

    Such a route is outside FastAPI's middleware and answers its own errors, so that it needs none
    of it; together the layers cost as much as a routing decision.
    """

    tls: Tls | None
    access: Access
    guard: Guard
    reread: Callable[[], Reloaded]
    leave: Callable[[], None]
    close: Callable[[], None]
    records: Records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As FastAPI's, behind the guard and the direct routes."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        if scope["method"] == "POST":
            found = self._direct(scope["path"])
            if found is not None:
                app, scope["path_params"] = found
                if self.access.open:
                    await app(scope, receive, send)
                else:
                    await self.guard(app, scope, receive, send)
                return
        await self.guard(super().__call__, scope, receive, named(scope, send))

    def reload(self) -> None:
        """Read again what may change while the server runs, and open logs again: on SIGHUP."""
        reopen()
        self.records.reopen()
        try:
            told = self.reread()
        except SettingsError as error:
            _LOG.error("settings and certificate stay as they were: %s", error)
            return
        _LOG.warning("settings read again: %s", told)

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


def create_app(
    settings: Settings,
    on_settled: Callable[[Service], None] | None = None,
    *,
    place: Place | None = None,
    ending: Ending | None = None,
    read: Callable[[], Settings] | None = None,
) -> App:
    """The application that serves the store of `settings`.

    The port opens before the variants are loaded, so that health can be asked for meanwhile.

    Args:
        on_settled: called once, when every variant is loaded and warm or has failed.
        place: among the workers that share the port; it says when the port may open.
        ending: knows when the server was told to end.
        read: reads the settings again, from where they came.

    Raises:
        gateway.lifecycle.catalog.StoreUnusable: the store is missing, or nothing in it
            can be served.
        gateway.settings.SettingsError: the memory limit does not hold one variant of every model,
            or the certificate is not usable.
        gateway.processes.ports.PortUnusable: a protocol's own port cannot be listened on.
        gateway.trust.ledger.LedgerForbidden: there are keys that this user may not read.
    """
    ending = ending or Ending(settings.drain_seconds)
    secured = tls.of(settings)
    metrics = Metrics()
    journal = Journal(metrics)
    service = Service(settings, journal, read, secured)
    ledger = Ledger(settings.database, settings.state_folder, secrets.token_hex(8))
    ledger.check()
    loopback = ports.is_loopback(settings.host)
    access = Access(ledger, metrics, require_keys=settings.require_keys, loopback=loopback)
    console = None if settings.console == "off" else Console(service, journal, place)
    parts = Parts(service, journal, settings, access, place, secured, console)
    worker = None if place is None else place.order.number
    records = Records(settings, journal, service.knows, worker)
    # Before anything is loaded, so that a port in use is told at once.
    listeners = protocols.listeners(parts)

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
            # The last to end: until then there are requests to tell of.
            listening.push_async_callback(records.stop, ending.step_s)
            await access.start()
            listening.push_async_callback(access.stop)
            starting = asyncio.create_task(start())
            if place is not None:
                await place.may_open(lambda: ending.begun)
            for listener in listeners:
                await listening.enter_async_context(listener)
            yield
            await service.stop(starting, ending)

    app = App(
        title="Gearshift",
        version=VERSION,
        summary="Variants of a model behind one endpoint that shifts between them by request.",
        lifespan=lifespan,
        # The pages that FastAPI offers load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.tls = secured
    app.access = access
    app.reread = service.reload
    app.leave = service.leave
    app.close = service.closing.set
    app.records = records
    app.guard = Guard(access, journal, loopback, admin=False)
    protocols.mount_all(app, parts)
    errors.install(app)
    openapi.install(app)
    return app
