"""Gives requests their traces, and sends what was recorded of those that have ended.

Which ones are recorded, OpenTelemetry's sampler decides as each comes; its exporter sends the spans
of many of them at once, on a thread of ours. Both do as the standard variables of the environment
say: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

import logging
import random
import re
import time
import uuid
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context

from gateway.about import VERSION
from gateway.messages import Trace
from gateway.recording import origins
from gateway.recording.backlog import Backlog
from gateway.recording.record import Record
from gateway.settings import SettingsError
from gateway.tracing import environment
from gateway.tracing.marks import Marks, Run
from gateway.tracing.spans import STATE_LETTERS, Spans

# A request has about this many spans.
_SPANS = 6
# A batch is over long before, or its lane was given up.
_RUN_S = 120.0
_NO_LIMITS = SpanLimits(*[SpanLimits.UNSET] * 8)
_QUERY = re.compile(r"\?\S+")


class OtelTracer:
    """Called on the event loop's thread.

    Args:
        scheme: "http" or "https".
        worker: the number of this process, where there are several.

    Raises:
        gateway.settings.SettingsError: a variable of the environment asks for what is not offered.
    """

    def __init__(self, scheme: str, worker: int | None) -> None:
        numbers = environment.numbers()
        resource = _resource(worker)
        scope = InstrumentationScope("gearshift", VERSION)
        self._spans = Spans(resource, scope, scheme, environment.limits())
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_without_query)
        try:
            # It makes no spans, so none of its limits are read.
            provider = TracerProvider(
                resource=resource, shutdown_on_exit=False, span_limits=_NO_LIMITS
            )
            self._sampler = provider.sampler
            self._exporter = OTLPSpanExporter()
        except Exception as error:
            raise SettingsError(
                f"tracing: OpenTelemetry does not begin as its variables ask: {error}"
            ) from error
        self._running: list[Run] = []
        self._lost = 0
        self._over = False
        self._backlog: Backlog[Record] = Backlog(
            "traces",
            self._deliver,
            most=max(1, numbers[environment.QUEUE] // _SPANS),
            every_s=numbers[environment.DELAY] / 1000,
            at_once=max(1, numbers[environment.BATCH] // _SPANS),
            again=lambda: bool(self._running),
        )

    @property
    def dropped(self) -> int:
        """Requests whose traces were lost: one too many for the thread, or not taken."""
        return self._backlog.dropped + self._lost

    def begin(
        self, route: str, traceparent: str | None, tracestate: str | None
    ) -> tuple[Trace, Marks | None]:
        """The span of a request that comes now; with marks, where its trace is recorded."""
        came_s = time.monotonic()
        parent = None if traceparent is None else origins.parent(traceparent)
        span_id = random.getrandbits(64) or 1
        if parent is None:
            trace_id, parent_id, context, state = random.getrandbits(128) or 1, 0, None, ""
        else:
            trace_id, parent_id = int(parent.trace_id, 16), int(parent.span_id, 16)
            flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
            remote = SpanContext(trace_id, parent_id, True, flags)
            context = set_span_in_context(NonRecordingSpan(remote))
            state = (tracestate or "")[: STATE_LETTERS + 1]
        result = self._sampler.should_sample(context, trace_id, route, SpanKind.SERVER)
        sampled = result.decision is Decision.RECORD_AND_SAMPLE
        trace = Trace(f"{trace_id:032x}", f"{span_id:016x}", sampled)
        if not sampled:
            return trace, None
        return trace, Marks(route, trace_id, span_id, parent_id, state, came_s)

    def put(self, record: Record) -> None:
        """Send the spans of a request that has marks, from another thread."""
        self._backlog.put(record)

    def close(self, patience_s: float) -> int:
        """Send what waits; how many requests' traces were lost, or not sent within `patience_s`."""
        before = self._lost
        lost = self._backlog.close(patience_s) + self._lost - before
        self._over = True
        # One that tries again and again to reach a collector stops trying.
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        return lost

    # From here on everything runs on the backlog's thread.

    def _deliver(self, ended: Sequence[Record]) -> None:
        if self._over:
            return
        unix_ns = time.time_ns() - time.monotonic_ns()
        spans = [span for record in ended for span in self._spans.of(record, unix_ns)]
        spans += self._batches(ended, unix_ns)
        if spans and self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            self._lost += len(ended)

    def _batches(self, ended: Sequence[Record], unix_ns: int) -> list[ReadableSpan]:
        """The spans of batches that have finished, once one of their requests has ended."""
        for record in ended:
            for run in record.origin.marks.runs if record.origin.marks else ():
                if not run.told:
                    run.told = True
                    self._running.append(run)
        finished = [run for run in self._running if run.finished_s]
        given_up_s = time.monotonic() - _RUN_S
        self._running = [
            run for run in self._running if not run.finished_s and run.started_s > given_up_s
        ]
        return [self._spans.batch(run, unix_ns) for run in finished]


def _without_query(record: logging.LogRecord) -> bool:
    """Leaves the query out of addresses in what the exporter logs: a key may stand there."""
    record.msg, record.args = _QUERY.sub("?…", record.getMessage()), None
    return True


def _resource(worker: int | None) -> Resource:
    own: dict[str, str | int] = {
        SERVICE_NAME: "gearshift",
        "service.version": VERSION,
        "service.instance.id": str(uuid.uuid4()),
    }
    if worker is not None:
        own["gearshift.worker"] = worker
    found = Resource.create()
    # What the environment says of these comes first; what the SDK makes up of a name does not.
    said = dict(found.attributes)
    if str(said[SERVICE_NAME]).startswith("unknown_service"):
        del said[SERVICE_NAME]
    return Resource({**own, **said}, found.schema_url)
