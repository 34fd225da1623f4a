"""The access log: a line for each request to infer, whatever became of it.

On the event loop's thread it costs a tuple: what a line is made of is left to a thread of its own.
A refusal that is repeated to requests without deciding them anew is not a line each, in a flood
that would cost more than they do: a line a second says how many there were.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.logs.lines import as_json, as_text, rfc3339
from gateway.logs.sink import Sink
from gateway.messages import InferRequest, InferResponse, Origin
from gateway.recording.backlog import Backlog
from gateway.recording.said_of import Knows, asked, failed, status
from router.constraints import NONE, Constraints
from router.decision import Decision
from router.errors import GearshiftError, Overloaded

_LOGGER = "gearshift.access"
_UNKNOWN = "unknown"
# Lines that may wait: ten seconds of a busy process, some tens of megabytes.
_MOST = 1 << 16
# In pieces that take the interpreter for less than a millisecond.
_AT_ONCE = 64
_EVERY_S = 0.05
_REPEATED_S = 1.0


class _Entry(NamedTuple):
    """What a line is made of; of a request nothing that it carried."""

    unix_s: float
    model: str
    rows: int
    constraints: Constraints
    origin: Origin
    total_s: float
    decision: Decision | None
    error: type[GearshiftError] | None
    charged: float = 0.0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    cached: bool = False
    repeated: int = 0


class AccessLog:
    """Follows the journal; called on the event loop's thread.

    Args:
        json: whether lines are JSON.
        worker: the number of this process, where there are several.
        errors_only: whether answers get no line.
        knows: what the store has.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        json: bool,
        worker: int | None,
        errors_only: bool,
        knows: Knows,
    ) -> None:
        self._sink = sink
        self._line = as_json if json else as_text
        self._worker = {} if worker is None else {"worker": worker}
        self._errors_only = errors_only
        self._knows = knows
        self._unsaid: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._backlog: Backlog[_Entry] = Backlog(
            "access-log", self._write, most=_MOST, every_s=_EVERY_S, at_once=_AT_ONCE
        )

    @property
    def dropped(self) -> int:
        """Lines that were one too many for the thread, so far."""
        return self._backlog.dropped

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """One request was answered."""
        if self._errors_only:
            return
        self._backlog.put(
            _Entry(
                time.time(),
                request.model,
                request.rows,
                request.constraints,
                request.origin,
                total_s,
                response.decision,
                None,
                response.cost_usd_per_million,
                response.queue_ms,
                response.infer_ms,
                response.cached,
            )
        )

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        origin: Origin,
        request: InferRequest | None,
    ) -> None:
        """One request ended without an answer."""
        model, rows, constraints = failed(model, request, self._knows)
        # Of the error its kind alone: its words may repeat what was sent.
        kind = type(error)
        self._backlog.put(
            _Entry(time.time(), model, rows, constraints, origin, total_s, None, kind)
        )

    def shed(
        self,
        model: str,
        error: Overloaded,
        origin: Origin,
        constraints: Constraints,  # noqa: ARG002
    ) -> Callable[[], None]:
        """Counts requests that are refused as `error` was."""
        loop = asyncio.get_running_loop()
        count = 0

        def say() -> None:
            nonlocal count
            entry = _Entry(time.time(), model, 0, NONE, origin, 0.0, None, type(error))
            self._backlog.put(entry._replace(repeated=count))
            self._unsaid.pop(say, None)
            count = 0

        def one_more() -> None:
            nonlocal count
            if not count:
                self._unsaid[say] = loop.call_later(_REPEATED_S, say)
            count += 1

        return one_more

    def reopen(self) -> None:
        """Open the file again, which was moved away."""
        self._sink.reopen()

    def close(self, patience_s: float) -> bool:
        """Write what waits; whether that was done within `patience_s`."""
        for say, timer in list(self._unsaid.items()):
            timer.cancel()
            say()
        return self._backlog.close(patience_s)

    def _write(self, entries: Sequence[_Entry]) -> None:
        # On the backlog's thread.
        lines = [self._line(members(entry, self._worker)) for entry in entries]
        self._sink.write(b"".join(lines))


def members(entry: _Entry, more: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says, in the order of `docs/how-to/logs.md`, and `more`."""
    origin, decision, trace = entry.origin, entry.decision, entry.origin.trace
    named: Mapping[str, Any] = {"request_id": origin.id}
    if entry.repeated:
        named = {"requests": entry.repeated}
    elif trace is not None:
        named = {**named, "trace_id": trace.trace_id, "span_id": trace.span_id}
    said: dict[str, Any] = {
        "time": rfc3339(entry.unix_s),
        "level": "info",
        "logger": _LOGGER,
        "message": "answered" if entry.error is None else "not answered",
        **more,
        **named,
        "protocol": origin.protocol,
        "tenant": origin.tenant,
        "key": origin.key or None,
        "model": entry.model or _UNKNOWN,
        "outcome": "ok" if entry.error is None else entry.error.code,
        "status": status(origin.protocol, entry.error),
    }
    if entry.repeated:
        return said
    said["rows"] = entry.rows
    said["constraints"] = asked(entry.constraints)
    said["latency_ms"] = round(entry.total_s * 1000, 3)
    if decision is not None:
        said["variant"] = decision.variant
        said["reason"] = decision.reason
        said["relaxed"] = decision.relaxed
        said["accuracy"] = decision.accuracy
        said["predicted_ms"] = round(decision.predicted_latency_ms, 3)
        said["queue_ms"] = round(entry.queue_ms, 3)
        said["infer_ms"] = round(entry.infer_ms, 3)
        said["cost_usd_per_million"] = round(entry.charged, 6)
        said["cached"] = entry.cached
    return said
