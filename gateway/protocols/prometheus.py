"""`GET /metrics` for Prometheus, in its text format or, where asked for, as OpenMetrics.

Of several workers that share the port, whichever is asked shows the series of all.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI, Request, Response

from gateway.processes.exchange import Everybody, answering
from gateway.protocols import Parts


def mount(app: FastAPI, parts: Parts) -> None:
    """Add the path."""
    metrics = parts.metrics
    everybody = None if parts.place is None else Everybody(metrics.registry, parts.place)

    # Not `async`: rendering takes milliseconds, which FastAPI then spends on another thread.
    @app.get("/metrics", tags=["metrics"], summary="Every metric, for Prometheus")
    def exposition(request: Request) -> Response:
        body, content_type = metrics.exposition(request.headers.get("accept", ""), everybody)
        return Response(body, headers={"content-type": content_type})


def listen(parts: Parts) -> AbstractAsyncContextManager[None]:
    """Answer the other workers, where there are any."""
    if parts.place is None:
        return contextlib.nullcontext()
    parts.metrics.restarted(parts.place.order.restarts)
    return answering(parts.metrics.registry, parts.place.socket_of(parts.place.order.number))
