"""`GET /metrics` for Prometheus, in its text format or, where asked for, as OpenMetrics."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from gateway.protocols import Parts


def mount(app: FastAPI, parts: Parts) -> None:
    """Add the path."""

    # Not `async`: rendering takes milliseconds, which FastAPI then spends on another thread.
    @app.get("/metrics", tags=["metrics"], summary="Every metric, for Prometheus")
    def metrics(request: Request) -> Response:
        body, content_type = parts.metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})
