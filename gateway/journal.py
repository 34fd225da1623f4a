"""The journal: every request to infer is told here once, however it ends.

Metrics count it; whatever else wants to know (the access log, the page's recent decisions) adds
itself. A listener is called on the event loop's thread, in the path of every request: it takes a
microsecond or two, and never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from gateway.messages import UNTOLD, InferRequest, InferResponse, Origin, Trace
from gateway.metrics import Metrics
from gateway.recording import origins
from gateway.tracing.marks import Marks
from router.constraints import NONE, Constraints
from router.errors import GearshiftError, Overloaded


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


@runtime_checkable
class Sheds(Protocol):
    """A listener that also follows requests which a refusal was repeated to, undecided."""

    def shed(
        self, model: str, error: Overloaded, origin: Origin, constraints: Constraints
    ) -> Callable[[], None]:
        """What to call for each one more that is refused like the one with that origin.

        Args:
            constraints: what they demand.
        """


class Tracer(Protocol):
    """What gives requests their traces."""

    def begin(
        self, route: str, traceparent: str | None, tracestate: str | None
    ) -> tuple[Trace, Marks | None]:
        """The span of a request that comes now; with marks, where its trace is recorded."""


class Journal:
    """Tells metrics and listeners. Called on the event loop's thread alone.

    Attributes:
        tracer: None while nothing is traced.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.tracer: Tracer | None = None
        self._listeners: tuple[Listener, ...] = ()

    def add(self, listener: Listener) -> None:
        """Tell `listener` of every request from now on."""
        self._listeners = (*self._listeners, listener)

    def remove(self, listener: Listener) -> None:
        """Tell it no more."""
        self._listeners = tuple(each for each in self._listeners if each is not listener)

    def began(
        self,
        protocol: str,
        route: str,
        given: str | None,
        traceparent: str | None,
        tracestate: str | None,
        *,
        tenant: str = UNTOLD.tenant,
        key: str = UNTOLD.key,
    ) -> Origin:
        """The origin of a request that comes now.

        Args:
            protocol: "rest" or "grpc".
            route: the path's template, or the method's full name.
            given: what its caller calls it; the server names those that are not, or not usably.
            traceparent, tracestate: as the W3C's Trace Context has them, if they came.
        """
        trace = marks = None
        if self.tracer is not None:
            trace, marks = self.tracer.begin(route, traceparent, tracestate)
        elif traceparent is not None:
            trace = origins.parent(traceparent)
        name = origins.named(given) or origins.fresh()
        return Origin(name, tenant, key, protocol, trace, marks)

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """One request was answered, `total_s` after its last byte."""
        self.metrics.answered(request, response, total_s)
        for listener in self._listeners:
            listener.answered(request, response, total_s)

    def shed(
        self, model: str, error: Overloaded, origin: Origin, constraints: Constraints = NONE
    ) -> Callable[[], None]:
        """What to call for each one more that is refused as `error` was, which is told already.

        Args:
            constraints: what they demand.
        """
        count = self.metrics.shed(model, error, origin.tenant, constraints)
        more = [
            each.shed(model, error, origin, constraints)
            for each in self._listeners
            if isinstance(each, Sheds)
        ]
        if not more:
            return count

        def every() -> None:
            count()
            for one in more:
                one()

        return every

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
