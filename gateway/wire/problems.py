"""Errors as HTTP answers: `application/problem+json` (RFC 9457).

Every body has `type`, `title`, `status` and `detail`; `error` repeats the detail because that is
where clients of the Open Inference Protocol look; `code` is stable and machine-readable, and
`retryable` says whether the same request may succeed later. What an error names (`field`,
`received`, `expected`, `nearest`, `retry_after_s`) stands beside them.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import orjson

from router.errors import (
    BudgetSpent,
    CallerLeft,
    DeadlinePassed,
    EngineFailed,
    Forbidden,
    GearshiftError,
    InvalidRequest,
    NotReady,
    Overloaded,
    RateLimited,
    TooLarge,
    Unauthorized,
    UnknownModel,
    UnknownVariant,
    Unsatisfiable,
)

CONTENT_TYPE = b"application/problem+json"

Headers = list[tuple[bytes, bytes]]

STATUSES: dict[type[GearshiftError], int] = {
    GearshiftError: 500,
    InvalidRequest: 400,
    TooLarge: 413,
    UnknownModel: 404,
    UnknownVariant: 404,
    Unsatisfiable: 422,
    Unauthorized: 401,
    Forbidden: 403,
    Overloaded: 429,
    RateLimited: 429,
    BudgetSpent: 429,
    NotReady: 503,
    DeadlinePassed: 504,
    EngineFailed: 500,
    CallerLeft: 499,
}


def of(error: GearshiftError) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer to a request that ended with `error`."""
    status = STATUSES[type(error)]
    members: dict[str, Any] = {**error.members, "retryable": error.retryable}
    headers: Headers = []
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b'Bearer realm="gearshift"'))
    if isinstance(error, Overloaded | NotReady) and error.retry_after_s is not None:
        # The header takes whole seconds; 0 would mean "at once", which is what just failed.
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
        members["retry_after_s"] = round(error.retry_after_s, 3)
    return rendered(status, error.code, error.title, error.detail, members, headers)


def of_status(
    status: int, detail: str, headers: Headers | None = None
) -> tuple[int, Headers, bytes]:
    """The same for a status that HTTP itself calls for, such as 404 for an unknown path."""
    title = HTTPStatus(status).phrase
    code = title.lower().replace(" ", "-")
    return rendered(status, code, title, detail, {}, headers or [])


def rendered(
    status: int, code: str, title: str, detail: str, members: dict[str, Any], headers: Headers
) -> tuple[int, Headers, bytes]:
    """The answer from its parts; `headers` gain the content's type and length."""
    body = orjson.dumps(
        {
            "type": f"urn:gearshift:problem:{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "error": detail,
            "code": code,
            **members,
        },
        default=str,
    )
    headers = [
        (b"content-type", CONTENT_TYPE),
        (b"content-length", b"%d" % len(body)),
        *headers,
    ]
    return status, headers, body
