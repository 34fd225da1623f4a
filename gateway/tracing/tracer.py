"""Gives requests their traces, and sends what was recorded of those that have ended.

Which ones are recorded, OpenTelemetry's sampler decides as each comes; its exporter sends them, on
a thread of ours. Both do as the standard variables of the environment say:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context

from gateway.about import VERSION
from gateway.messages import InferRequest, InferResponse, Origin, Trace
from gateway.recording import origins
from gateway.recording.backlog import Backlog
from gateway.recording.said_of import Knows, failed
from gateway.tracing import environment
from gateway.tracing.marks import Marks, Run
from gateway.tracing.spans import Ended, Spans
from router.errors import GearshiftError

# A request has about this many spans.
_SPANS = 6
# The W3C asks for no more of a `tracestate` to be passed on.
_STATE_LETTERS = 512
# A batch is over long before, or its lane was given up.
_RUN_S = 120.0


class OtelTracer:
    """Follows the journal; called on the event loop's thread.

    Args:
        scheme: "http" or "https".
        worker: the number of this process, where there are several.
        knows: what the store has.

    Raises:
        gateway.settings.SettingsError: a variable of the environment asks for what is not offered.
    """

    def __init__(self, scheme: str, worker: int | None, knows: Knows) -> None:
        numbers = environment.numbers()
        resource = _resource(worker)
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._sampler = provider.sampler
        self._knows = knows
        self._spans = Spans(resource, InstrumentationScope("gearshift", VERSION), scheme)
        self._exporter = OTLPSpanExporter()
        self._running: list[Run] = []
        self._lost = 0
        self._backlog: Backlog[Ended] = Backlog(
            "traces",
            self._deliver,
            most=max(1, numbers[environment.QUEUE] // _SPANS),
            every_s=numbers[environment.DELAY] / 1000,
            at_once=max(1, numbers[environment.BATCH] // _SPANS),
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
            state = (tracestate or "")[:_STATE_LETTERS]
        result = self._sampler.should_sample(context, trace_id, route, SpanKind.SERVER)
        sampled = result.decision is Decision.RECORD_AND_SAMPLE
        trace = Trace(f"{trace_id:032x}", f"{span_id:016x}", sampled)
        if not sampled:
            return trace, None
        return trace, Marks(route, trace_id, span_id, parent_id, state, came_s)

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """One request was answered."""
        del total_s
        origin = request.origin
        if origin.marks is None:
            return
        self._backlog.put(
            Ended(
                origin.marks,
                origin,
                request.model,
                request.rows,
                request.constraints,
                time.monotonic(),
                response.decision,
                None,
                response.cost_usd_per_million,
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
        del total_s
        marks = origin.marks
        if marks is None:
            return
        model, rows, constraints = failed(model, request, self._knows)
        now_s = time.monotonic()
        self._backlog.put(Ended(marks, origin, model, rows, constraints, now_s, None, type(error)))

    def close(self, patience_s: float) -> bool:
        """Send what waits; whether that was done within `patience_s`."""
        sent = self._backlog.close(patience_s)
        # One that tries again and again to reach a collector stops trying.
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        return sent

    # From here on everything runs on the backlog's thread.

    def _deliver(self, ended: Sequence[Ended]) -> None:
        unix_ns = time.time_ns() - time.monotonic_ns()
        spans = [span for each in ended for span in self._spans.of(each, unix_ns)]
        spans += self._batches(ended, unix_ns)
        if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            self._lost += len(ended)

    def _batches(self, ended: Sequence[Ended], unix_ns: int) -> list[ReadableSpan]:
        """The spans of batches whose first request has ended, once they have finished."""
        for each in ended:
            for run in each.marks.runs:
                if not run.told:
                    run.told = True
                    self._running.append(run)
        finished = [run for run in self._running if run.finished_s]
        given_up_s = time.monotonic() - _RUN_S
        self._running = [
            run for run in self._running if not run.finished_s and run.started_s > given_up_s
        ]
        return [self._spans.batch(run, unix_ns) for run in finished]


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
