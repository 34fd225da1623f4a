"""What is recorded of requests beside the metrics: the access log and traces, as far as wanted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.journal import Journal
from gateway.logs.access import AccessLog
from gateway.logs.setup import opened
from gateway.recording.said_of import Knows
from gateway.settings import Settings, SettingsError

if TYPE_CHECKING:
    from gateway.tracing.tracer import OtelTracer

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
        self._access: AccessLog | None = None
        if settings.access_log != "off":
            name = "log_file" if settings.access_log_file is None else "access_log_file"
            self._access = AccessLog(
                opened(name, settings),
                json=settings.log_format == "json",
                worker=worker,
                errors_only=settings.access_log == "errors",
                knows=knows,
            )
            journal.add(self._access)

        self._tracer: OtelTracer | None = None
        if settings.tracing and os.environ.get(_DISABLED, "").lower() != "true":
            self._tracer = _tracer(settings, knows, worker)
            journal.tracer = self._tracer
            journal.add(self._tracer)
        journal.metrics.watch_records(
            lambda: self._access.dropped if self._access else 0,
            lambda: self._tracer.dropped if self._tracer else 0,
        )

    def reopen(self) -> None:
        """Open files again that were moved away."""
        if self._access is not None:
            self._access.reopen()

    async def stop(self, left_s: Callable[[], float]) -> None:
        """Write what is left to be written.

        Args:
            left_s: how long a step of the end may take.
        """
        if self._access is not None:
            await asyncio.to_thread(self._access.close, min(_LAST_WORDS_S, left_s()))
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close, min(_LAST_WORDS_S, left_s()))


def _tracer(settings: Settings, knows: Knows, worker: int | None) -> OtelTracer:
    # Here, for OpenTelemetry is an extra, and takes a quarter of a second to import.
    try:
        from gateway.tracing.tracer import OtelTracer
    except ImportError as error:
        raise SettingsError(
            f"tracing: expected the extra `tracing`, which is not installed ({error}): "
            "pip install 'gearshift[tracing]'"
        ) from error
    return OtelTracer("http" if settings.tls_certificate is None else "https", worker, knows)
