"""What is recorded of requests beside the metrics: the access log and traces, as far as wanted."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.journal import Journal
from gateway.logs.access import AccessLog
from gateway.logs.setup import opened
from gateway.messages import InferRequest, InferResponse, Origin
from gateway.recording import record
from gateway.recording.said_of import Knows
from gateway.settings import Settings, SettingsError
from router.constraints import Constraints
from router.errors import GearshiftError, Overloaded

if TYPE_CHECKING:
    from gateway.tracing.tracer import OtelTracer

_LOG = logging.getLogger(__name__)

# OpenTelemetry's own switch, which all that is built with it obeys.
_DISABLED = "OTEL_SDK_DISABLED"
# How long writing what is left may take when the server ends, at most.
_LAST_WORDS_S = 3.0


class Records:
    """What follows the journal, from the server's start to its end.

    Args:
        knows: what the store has.
        worker: the number of this process, where there are several.

    Raises:
        gateway.settings.SettingsError: a file cannot be opened, or tracing is not possible.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        knows: Knows,
        worker: int | None,
    ) -> None:
        self._knows = knows
        self._access: AccessLog | None = None
        self._answers = settings.access_log == "all"
        if settings.access_log != "off":
            name = "log_file" if settings.access_log_file is None else "access_log_file"
            json = settings.log_format == "json"
            self._access = AccessLog(opened(name, settings), json=json, worker=worker)

        self._tracer: OtelTracer | None = None
        if settings.tracing and os.environ.get(_DISABLED, "").strip().lower() != "true":
            self._tracer = _tracer(settings, worker)
            journal.tracer = self._tracer
        if self._access is not None or self._tracer is not None:
            journal.add(self)
        journal.metrics.watch_records(
            lambda: self._access.dropped if self._access else 0,
            lambda: self._tracer.dropped if self._tracer else 0,
        )

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """One request was answered."""
        traced = request.origin.marks is not None
        if self._answers or traced:
            self._put(record.of_answer(request, response, total_s), self._answers, traced)

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        origin: Origin,
        request: InferRequest | None,
    ) -> None:
        """One request ended without an answer."""
        logged, traced = self._access is not None, origin.marks is not None
        if logged or traced:
            now_s, knows = time.monotonic(), self._knows
            ended = record.of_failure(model, error, now_s, total_s, origin, request, knows)
            self._put(ended, logged, traced)

    def shed(
        self, model: str, error: Overloaded, origin: Origin, constraints: Constraints
    ) -> Callable[[], None]:
        """What to call for each one more that is refused like the one with that origin."""
        del constraints
        return _nothing if self._access is None else self._access.shed(model, error, origin)

    def _put(self, ended: record.Record, logged: bool, traced: bool) -> None:
        if logged and self._access is not None:
            self._access.put(ended)
        if traced and self._tracer is not None:
            self._tracer.put(ended)

    def reopen(self) -> None:
        """Open files again that were moved away."""
        if self._access is not None:
            self._access.reopen()

    async def stop(self, left_s: Callable[[], float]) -> None:
        """Write what is left to be written, and say in the log what could not be.

        Args:
            left_s: how long a step of the end may take.
        """
        patience_s = min(_LAST_WORDS_S, left_s())
        lines, traces = await asyncio.gather(
            *(
                asyncio.to_thread(each.close, patience_s) if each is not None else _none()
                for each in (self._access, self._tracer)
            )
        )
        if lines or traces:
            _LOG.warning(
                "lost at the server's end: %d lines of the access log, the traces of %d requests",
                lines,
                traces,
            )


async def _none() -> int:
    return 0


def _nothing() -> None:
    """A refusal that was repeated has no trace."""


def _tracer(settings: Settings, worker: int | None) -> OtelTracer:
    # Here, for OpenTelemetry is an extra, and takes a quarter of a second to import.
    try:
        from gateway.tracing import environment

        # Before the rest, which already reads some of them as it is imported.
        environment.limits()
        from gateway.tracing.tracer import OtelTracer
    except ImportError as error:
        raise SettingsError(
            f"tracing: expected the extra `tracing`, which is not installed ({error}): "
            "pip install 'gearshift[tracing]'"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"tracing: OpenTelemetry does not begin as its variables ask: {error}"
        ) from error
    return OtelTracer("http" if settings.tls_certificate is None else "https", worker)
