"""Errors as gRPC statuses, with the same words as over HTTP.

The status's message is the error's detail. Trailing metadata hold the rest: `gearshift-code` is
stable and machine-readable, `gearshift-problem-bin` is the problem document (RFC 9457) that REST
would have sent, `retry-after` its header, and `grpc-retry-pushback-ms` (gRFC A6) makes clients that
retry by themselves wait as long.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import grpc

from gateway.wire import grpc_statuses, problems
from router.errors import GearshiftError

CODE = "gearshift-code"
PROBLEM = "gearshift-problem-bin"
PUSHBACK = "grpc-retry-pushback-ms"

STATUSES: dict[type[GearshiftError], Any] = {
    kind: grpc.StatusCode[name] for kind, name in grpc_statuses.NAMES.items()
}

# Clients take 8 KiB of metadata together, unless told otherwise; base64 adds a third.
_PROBLEM_BYTES = 4096
_DETAIL_LETTERS = 1024
_OF_HTTP = (b"content-type", b"content-length")


class Status(NamedTuple):
    """What a call ends with."""

    code: Any
    details: str
    trailing: tuple[tuple[str, str | bytes], ...]


def of(error: GearshiftError) -> Status:
    """The status of a call that ended with `error`."""
    status, headers, body = problems.of(error)
    detail = error.detail[:_DETAIL_LETTERS]
    if len(body) > _PROBLEM_BYTES:
        members = {"retryable": error.retryable}
        body = problems.rendered(status, error.code, error.title, detail, members, [])[2]
    trailing: list[tuple[str, str | bytes]] = [(CODE, error.code), (PROBLEM, body)]
    trailing += [(name.decode(), value) for name, value in headers if name not in _OF_HTTP]
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        trailing.append((PUSHBACK, str(math.ceil(retry_after_s * 1000))))
    return Status(STATUSES[type(error)], detail, tuple(trailing))


def parameters(error: GearshiftError) -> dict[str, str]:
    """The same for an answer in a stream, which has no metadata of its own."""
    return {"gearshift_code": error.code, "gearshift_problem": problems.of(error)[2].decode()}
