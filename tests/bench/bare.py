"""What the gateway's overhead is measured against: routes that read the body and answer, no more.

`uvicorn tests.bench.bare:starlette_app` and `uvicorn tests.bench.bare:fastapi_app`. Both answer
with the bytes that the gateway with a no-op engine answers with, near enough.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PATH = "/v2/models/noop/infer"
ANSWER = (
    b'{"model_name":"noop","model_version":"fp32","outputs":[{"name":"logits","datatype":"FP32",'
    b'"shape":[1,10],"data":[0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0]}]}'
)


async def _infer(request: Request) -> Response:
    await request.body()
    return Response(ANSWER, media_type="application/json")


starlette_app = Starlette(routes=[Route(PATH, _infer, methods=["POST"])])

fastapi_app = FastAPI()


@fastapi_app.post(PATH)
async def infer(body: dict[str, Any]) -> Any:
    """FastAPI's own way: the body parsed and injected, the answer encoded by the framework."""
    del body
    return {"model_name": "noop", "model_version": "fp32", "outputs": [{"data": [0.0] * 10}]}
