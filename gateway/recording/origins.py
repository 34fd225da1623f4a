"""What a request is called, and the trace it belongs to, as it says itself or else as we do."""

from __future__ import annotations

import itertools
import re
import secrets

from gateway.messages import Origin, Trace

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

# What other systems name requests by: UUIDs, ULIDs, hashes, paths of those. It goes into logs and
# into a header of the answer, so nothing in it may need quoting.
_ID = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,128}", re.ASCII)
# W3C Trace Context, "traceparent": later versions may say more behind a dash.
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_FORBIDDEN_VERSION = "ff"
_SAMPLED = 1

# Random once, so that no two processes give the same; a number after it costs next to nothing.
_process = secrets.token_hex(8)
_numbers = itertools.count(1)


def logged(origin: Origin) -> dict[str, str]:
    """What a line of the log says of the request it is about, as `extra`."""
    said = {"request_id": origin.id}
    if origin.trace is not None:
        said["trace_id"] = origin.trace.trace_id
    return said


def fresh() -> str:
    """A name that no other request has."""
    return f"{_process}-{next(_numbers)}"


def named(given: str | None) -> str | None:
    """A name that a caller gave, if it may stand in logs and headers."""
    return given if given and _ID.fullmatch(given) else None


def parent(traceparent: str) -> Trace | None:
    """The caller's span; None where the header is none and must be ignored, as the W3C wants."""
    found = _PARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == _FORBIDDEN_VERSION or (more and version == "00"):
        return None
    if not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return Trace(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def traceparent(trace: Trace) -> str:
    """A span, as the W3C's header of that name has it."""
    return f"00-{trace.trace_id}-{trace.span_id}-{int(trace.sampled):02x}"
