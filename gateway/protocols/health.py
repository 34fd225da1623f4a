"""Health for orchestrators: `GET /healthz` while the process lives, `GET /readyz` when it serves.

The same answers as the Open Inference Protocol's `/v2/health/live` and `/v2/health/ready`, at the
paths that Kubernetes manifests and load balancers use by habit.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from gateway.protocols import Parts


def mount(app: FastAPI, parts: Parts) -> None:
    """Add both paths."""

    @app.get("/healthz", tags=["health"], summary="Whether the process lives")
    async def healthz() -> JSONResponse:
        live = parts.service.live
        return JSONResponse({"live": live}, 200 if live else 503)

    @app.get("/readyz", tags=["health"], summary="Whether every model can be served")
    async def readyz() -> JSONResponse:
        ready = parts.service.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)
