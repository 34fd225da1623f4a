"""A request that ends as nobody foresaw is counted with its deadline."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gateway.http.asgi import ORIGIN
from gateway.http.infer import Infer
from gateway.journal import Journal
from gateway.messages import InferRequest
from gateway.metrics import Metrics
from gateway.service import Service
from router.constraints import Constraints


class Ends:
    """A service that ends each request in an error of Python's own."""

    left = 0

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def infer(self, *_: object) -> None:
        raise self._error


class Read(Infer):
    """An infer path that has read a request with a deadline."""

    async def _read(self, model: str, scope: Any, *_: Any) -> Any:
        return InferRequest(model, {}, 1, Constraints(max_latency_ms=20), 0.0, scope[ORIGIN]), None


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("a defect"), 500), (asyncio.CancelledError(), 503)]
)
def test_its_deadline_is_broken(error: BaseException, status: int) -> None:
    metrics = Metrics()
    metrics.watch_model("m")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope: Any = {"type": "http", "path_params": {"model": "m"}, "headers": []}
    infer = Read(cast("Service", Ends(error)), Journal(metrics), 100)
    asyncio.run(infer(scope, receive, send))
    assert sent[0]["status"] == status
    labels = {"model": "m", "outcome": "broken", "tenant": "open"}
    assert metrics.registry.get_sample_value("gearshift_deadlines_total", labels) == 1
