"""What an answer says about itself, in the same names and words through every protocol.

Over HTTP each is a header; over gRPC each is a member of the trailing metadata. The names are those
of the product: `Gearshift-Variant`, `Gearshift-Reason`, and so on, and `Server-Timing` (W3C).
"""

from __future__ import annotations

from functools import lru_cache

from gateway.messages import InferResponse, Origin
from gateway.recording import origins

Said = list[tuple[bytes, bytes]]

_REQUEST_ID = origins.REQUEST_ID.encode()
_TRACEPARENT = origins.TRACEPARENT.encode()


def of(response: InferResponse, parse_ms: float) -> Said:
    """Names in lower case, and values, in a list that the caller may add to.

    Args:
        parse_ms: from the request's last byte until it was parsed.
    """
    decision = response.decision
    said = [
        *_repeated(
            decision.variant,
            f"{decision.reason}; {decision.why}",
            decision.accuracy,
            decision.relaxed,
        ),
        (b"gearshift-cost-usd-per-million", b"%.6g" % response.cost_usd_per_million),
        (b"gearshift-predicted-latency-ms", b"%.3f" % decision.predicted_latency_ms),
        (
            b"server-timing",
            b"parse;dur=%.3f, queue;dur=%.3f, infer;dur=%.3f"
            % (parse_ms, max(0.0, response.queue_ms - parse_ms), response.infer_ms),
        ),
    ]
    if response.cached:
        said.append((b"gearshift-cache", b"hit"))
    return said


def of_origin(origin: Origin) -> Said:
    """What every answer says of its request: its name, and its span if a trace is recorded."""
    named = [(_REQUEST_ID, origin.id.encode())]
    if origin.marks is not None and origin.trace is not None:
        named.append((_TRACEPARENT, origins.traceparent(origin.trace).encode()))
    return named


@lru_cache(maxsize=1024)
def _repeated(variant: str, reason: str, accuracy: float, relaxed: tuple[str, ...]) -> Said:
    """What repeats from answer to answer. Names and words are ASCII by their patterns."""
    said = [
        (b"gearshift-variant", variant.encode()),
        (b"gearshift-reason", reason.encode()),
        (b"gearshift-accuracy", b"%.6g" % accuracy),
    ]
    if relaxed:
        said.append((b"gearshift-relaxed", ",".join(relaxed).encode()))
    return said
