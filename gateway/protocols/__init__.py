"""Protocols: wire formats in front of the one `Service.infer`. One file = one protocol.

To add one, put a file here that defines `mount`:

    def mount(app: FastAPI, parts: Parts) -> None: ...

It adds its routes to the app and does nothing else. A protocol that is not HTTP, or listens on a
port of its own, also defines `listen`, which is entered before the variants are loaded and left
when the server stops:

    def listen(parts: Parts) -> AbstractAsyncContextManager[None]: ...

A protocol translates bytes into an
`InferRequest`, calls the service, and translates the answer or the error back. Where a route is
called for every inference, make it a plain Starlette `Route` around an ASGI callable: a FastAPI
endpoint costs three times as much.
"""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from fastapi import FastAPI

from gateway.access import Access
from gateway.metrics import Metrics
from gateway.service import Service
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What a protocol may use."""

    service: Service
    metrics: Metrics
    settings: Settings
    access: Access


def names() -> list[str]:
    """The protocols of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def mount_all(app: FastAPI, parts: Parts) -> None:
    """Mount every protocol of this folder; an import error in one names its file."""
    for name in names():
        importlib.import_module(f"{__name__}.{name}").mount(app, parts)


def listeners(parts: Parts) -> list[AbstractAsyncContextManager[None]]:
    """What every protocol of this folder that has ports of its own listens with."""
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names()]
    return [module.listen(parts) for module in modules if hasattr(module, "listen")]
