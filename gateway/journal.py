"""The journal: every request to infer is told here once, however it ends.

Metrics count it; whatever else wants to know (the access log, the page's recent decisions) adds
itself. A listener is called on the event loop's thread, in the path of every request: it takes a
microsecond or two, and never raises.
"""

from __future__ import annotations

from typing import Protocol

from gateway.messages import UNTOLD, InferRequest, InferResponse, Origin
from gateway.metrics import Metrics
from router.errors import GearshiftError


class Listener(Protocol):
    """What may follow the journal."""

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """One request was answered, `total_s` after its last byte."""

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        origin: Origin,
        request: InferRequest | None,
    ) -> None:
        """One request ended without an answer; `request` is None where it could not be read, and
        `model` is then what its sender wrote."""


class Journal:
    """Tells metrics and listeners. Called on the event loop's thread alone."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._listeners: tuple[Listener, ...] = ()

    def add(self, listener: Listener) -> None:
        """Tell `listener` of every request from now on."""
        self._listeners = (*self._listeners, listener)

    def remove(self, listener: Listener) -> None:
        """Tell it no more."""
        self._listeners = tuple(each for each in self._listeners if each is not listener)

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """One request was answered, `total_s` after its last byte."""
        self.metrics.answered(request, response, total_s)
        for listener in self._listeners:
            listener.answered(request, response, total_s)

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        origin: Origin = UNTOLD,
        request: InferRequest | None = None,
    ) -> None:
        """One request ended without an answer, `total_s` after its last byte."""
        self.metrics.failed(model, error, total_s, origin, request)
        for listener in self._listeners:
            listener.failed(model, error, total_s, origin, request)
