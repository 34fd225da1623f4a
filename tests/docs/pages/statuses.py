"""Statuses: from the tree of errors and the table of HTTP's, with gRPC's beside them."""

from __future__ import annotations

from gateway.rpc import problems
from gateway.wire.problems import STATUSES
from router.errors import GearshiftError
from tests.docs.pages import table

WHEN = {
    "invalid-request": "a constraint, tensor, shape, datatype or body is malformed; `field`, "
    "`received` and `expected` say which",
    "too-large": "the body is over `max_body_bytes`",
    "unknown-model": "no such model, or the operator unloaded it",
    "unknown-variant": "no such variant or alias, or the operator disabled it",
    "unsatisfiable": "no variant can meet the constraints, ever; `nearest` says what would fit",
    "unauthorized": "no key, or one that opens nothing",
    "forbidden": "the key has not the scope",
    "overloaded": "it would fit, but not under the present load",
    "rate-limited": "over the key's rate, or too many at once",
    "budget-spent": "the key's budget of the day is used up",
    "not-ready": "no healthy variant; still starting; stopping",
    "deadline-passed": "the deadline passed while it was queued or ran",
    "engine-failed": "the engine failed, and no other variant could answer",
    "caller-left": "the caller is gone; nobody reads it, it is counted",
    "internal": "a fault of the server; the log has it",
}


def text() -> str:
    rows = []
    for kind, status in sorted(STATUSES.items(), key=lambda one: (one[1], one[0].code)):
        again = "yes" if kind.retryable else "no"
        rows.append((f"`{kind.code}`", str(status), _grpc(kind), again, WHEN[kind.code]))
    assert {kind.code for kind in STATUSES} == set(WHEN)
    return _INTRODUCTION + "\n" + table(_HEADINGS, rows) + _REST


def _grpc(kind: type[GearshiftError]) -> str:
    return f"`{problems.STATUSES[kind].name}`"


_HEADINGS = ("code", "HTTP", "gRPC", "again?", "when")
_INTRODUCTION = """# Statuses

How a request can end without an answer. *Again?* is `retryable` in the body: whether the same
request may succeed later. Where it is, `Retry-After` says when, if that is known.
"""
_REST = """
An error is `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `code`,
`retryable`, and `error`, which repeats the detail where v2 clients look for it. Over gRPC the
same document is in the trailing metadata, as [gRPC](grpc.md) says.

```sh
curl -s http://127.0.0.1:8080/v2/models/digits/infer --data @models/digits/sample.json \\
  -H 'Gearshift-Max-Latency-Ms: soon' | python -m json.tool
```

<!-- output -->
```json
{
  "type": "urn:gearshift:problem:invalid-request",
  "title": "Invalid request",
  "status": 400,
  "detail": "gearshift-max-latency-ms: expected a positive number of milliseconds, got 'soon'",
  "error": "gearshift-max-latency-ms: expected a positive number of milliseconds, got 'soon'",
  "code": "invalid-request",
  "field": "gearshift-max-latency-ms",
  "received": "soon",
  "expected": "a positive number of milliseconds",
  "retryable": false
}
```

HTTP itself adds 404 and 405 for paths and methods that there are not, 408 where a request does not
arrive in time, 414 and 431 for a request line or headers that are too long.
"""
