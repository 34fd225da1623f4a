"""Protocols: wire formats in front of the one `Service.infer`. One file = one protocol.

To add one, put a file here that defines `mount`:

    def mount(app: FastAPI, parts: Parts) -> None: ...

It adds its routes to the app and does nothing else. A protocol translates bytes into an
`InferRequest`, calls the service, and translates the answer or the error back. Where a route is
called for every inference, make it a plain Starlette `Route` around an ASGI callable: a FastAPI
endpoint costs three times as much.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass

from fastapi import FastAPI

from gateway.metrics import Metrics
from gateway.service import Service
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What a protocol may use."""

    service: Service
    metrics: Metrics
    settings: Settings


def names() -> list[str]:
    """The protocols of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def mount_all(app: FastAPI, parts: Parts) -> None:
    """Mount every protocol of this folder; an import error in one names its file."""
    for name in names():
        importlib.import_module(f"{__name__}.{name}").mount(app, parts)
