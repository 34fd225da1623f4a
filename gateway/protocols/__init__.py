"""Protocols: wire formats in front of the one `Service.infer`. One file = one protocol.

To add one, put a file here that defines `mount`:

    def mount(app: FastAPI, parts: Parts) -> None: ...

It adds its routes to the app and does nothing else. What operators alone may call goes to the admin
port instead, where every request was let in with the scope `admin` before it reaches a route:

    def mount_admin(app: FastAPI, parts: Parts) -> None: ...

A protocol that is not HTTP, or listens on a port of its own, defines `listen`. It is called before
anything is loaded, so that it can bind its port and raise `gateway.processes.ports.PortUnusable`;
what it returns is entered before the variants are loaded and left when the server stops:

    def listen(parts: Parts) -> AbstractAsyncContextManager[None]: ...

Each of the three is optional. A protocol translates bytes into an `InferRequest`, calls the
service, and translates the answer or the error back. Where a route is called for every inference,
make it a plain Starlette `Route` around an ASGI callable: a FastAPI endpoint costs three times as
much.
"""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import ModuleType

from fastapi import FastAPI

from gateway.console.gathering import Console
from gateway.journal import Journal
from gateway.metrics import Metrics
from gateway.processes.worker import Place
from gateway.service import Service
from gateway.settings import Settings
from gateway.trust.access import Access
from gateway.trust.tls import Tls


@dataclass(frozen=True, slots=True)
class Parts:
    """What a protocol may use."""

    service: Service
    journal: Journal
    settings: Settings
    access: Access
    place: Place | None = None
    """Among the workers that share the port; None where this process serves it alone."""
    tls: Tls | None = None
    """What every listener speaks; None for plain TCP."""
    console: Console | None = None
    """What the page at `/` shows; None where there is none."""

    @property
    def metrics(self) -> Metrics:
        """What the journal counts in."""
        return self.journal.metrics


def names() -> list[str]:
    """The protocols of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def mount_all(app: FastAPI, parts: Parts) -> None:
    """Mount every protocol of this folder; an import error in one names its file."""
    for module in _modules():
        if hasattr(module, "mount"):
            module.mount(app, parts)


def mount_admin_all(app: FastAPI, parts: Parts) -> None:
    """Mount what every protocol of this folder offers on the admin port."""
    for module in _modules():
        if hasattr(module, "mount_admin"):
            module.mount_admin(app, parts)


def listeners(parts: Parts) -> list[AbstractAsyncContextManager[None]]:
    """What every protocol of this folder that has ports of its own listens with."""
    return [module.listen(parts) for module in _modules() if hasattr(module, "listen")]


def _modules() -> list[ModuleType]:
    return [importlib.import_module(f"{__name__}.{name}") for name in names()]
