"""The access log: a line for each request to infer, whatever became of it.

On the event loop's thread it costs a tuple: what a line is made of is left to a thread of its own.
A refusal that is repeated to requests without deciding them anew is not a line each, in a flood
that would cost more than they do: a line a second says how many there were.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.logs.lines import as_json, as_text, rfc3339
from gateway.logs.sink import Sink
from gateway.messages import Origin
from gateway.recording.backlog import Backlog
from gateway.recording.record import Record
from gateway.recording.said_of import asked, status
from router.constraints import NONE
from router.errors import Overloaded

_LOGGER = "gearshift.access"
_UNKNOWN = "unknown"
# Lines that may wait: ten seconds of a busy process, some tens of megabytes.
_MOST = 1 << 16
# In pieces that take the interpreter for less than a millisecond.
_AT_ONCE = 64
_EVERY_S = 0.05
_REPEATED_S = 1.0


class AccessLog:
    """Writes lines; called on the event loop's thread.

    Args:
        json: whether lines are JSON.
        worker: the number of this process, where there are several.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        json: bool,
        worker: int | None,
    ) -> None:
        self._sink = sink
        self._line = as_json if json else as_text
        self._worker = {} if worker is None else {"worker": worker}
        self._unsaid: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._backlog: Backlog[Record] = Backlog(
            "access-log", self._write, most=_MOST, every_s=_EVERY_S, at_once=_AT_ONCE
        )

    @property
    def dropped(self) -> int:
        """Lines that were one too many for the thread, so far."""
        return self._backlog.dropped

    def put(self, record: Record) -> None:
        """Write a line of it, on another thread."""
        self._backlog.put(record)

    def shed(self, model: str, error: Overloaded, origin: Origin) -> Callable[[], None]:
        """Counts requests that are refused as `error` was."""
        loop = asyncio.get_running_loop()
        count = 0

        def say() -> None:
            nonlocal count
            now_s = time.monotonic()
            record = Record(model, 0, NONE, origin, now_s, 0.0, None, type(error), repeated=count)
            self._backlog.put(record)
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

    def close(self, patience_s: float) -> int:
        """Write what waits; how many lines were lost, or not written within `patience_s`."""
        for say, timer in list(self._unsaid.items()):
            timer.cancel()
            say()
        return self._backlog.close(patience_s)

    def _write(self, records: Sequence[Record]) -> None:
        # On the backlog's thread.
        since_s = time.time() - time.monotonic()
        lines = [
            self._line(members(record, since_s + record.ended_s, self._worker))
            for record in records
        ]
        self._sink.write(b"".join(lines))


def members(record: Record, unix_s: float, more: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says, in the order of `docs/how-to/logs.md`, and `more`.

    Args:
        unix_s: when the request ended.
    """
    origin, decision, trace = record.origin, record.decision, record.origin.trace
    named: Mapping[str, Any] = {"request_id": origin.id}
    if record.repeated:
        named = {"requests": record.repeated}
    elif trace is not None:
        named = {**named, "trace_id": trace.trace_id, "span_id": trace.span_id}
    said: dict[str, Any] = {
        "time": rfc3339(unix_s),
        "level": "info",
        "logger": _LOGGER,
        "message": "answered" if record.error is None else "not answered",
        **more,
        **named,
        "protocol": origin.protocol,
        "tenant": origin.tenant,
        "key": origin.key or None,
        "model": record.model or _UNKNOWN,
        "outcome": "ok" if record.error is None else record.error.code,
        "status": status(origin.protocol, record.error),
    }
    if record.repeated:
        return said
    said["rows"] = record.rows
    said["constraints"] = asked(record.constraints)
    said["latency_ms"] = round(record.total_s * 1000, 3)
    if decision is not None:
        said["variant"] = decision.variant
        said["reason"] = decision.reason
        said["relaxed"] = decision.relaxed
        said["accuracy"] = decision.accuracy
        said["predicted_ms"] = round(decision.predicted_latency_ms, 3)
        said["queue_ms"] = round(record.queue_ms, 3)
        said["infer_ms"] = round(record.infer_ms, 3)
        said["cost_usd_per_million"] = round(record.charged, 6)
        said["cached"] = record.cached
    return said
