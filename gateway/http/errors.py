"""Every error of an app as problem+json: our own, HTTP's, and the unexpected."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from gateway.wire import problems
from router.errors import GearshiftError


def install(app: FastAPI) -> None:
    """Let `app` answer its errors so, whichever of its routes they come from."""
    app.add_exception_handler(GearshiftError, _refused)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _unexpected)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, GearshiftError)
    return _response(problems.of(error))


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    details = {
        404: f"nothing is at {path}" if error.detail == "Not Found" else error.detail,
        405: f"{path} does not take {request.method}",
    }
    headers = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
    detail = details.get(error.status_code, error.detail)
    return _response(problems.of_status(error.status_code, detail, headers))


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again for the server's log, so it is not logged here.
    del request, error
    unexpected = GearshiftError("an unexpected error; the server's log says more")
    return _response(problems.of(unexpected))


def _response(parts: tuple[int, problems.Headers, bytes]) -> Response:
    status, headers, body = parts
    response = Response(body, status)
    response.raw_headers = headers
    return response
