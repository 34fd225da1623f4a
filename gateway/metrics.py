"""Every metric, in one file, on a registry of its own. Names start with `gearshift_`.

The values of every label come from the store and from this code, never from a request: a model's
name out of a path counts as "unknown" until the store has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.about import VERSION
from gateway.messages import UNTOLD, InferRequest, InferResponse, Origin
from gateway.statistics import Statistics, Totals
from router.breaker import STATES, Breaker
from router.decision import Decision
from router.errors import DeadlinePassed, EngineFailed, GearshiftError

# From a tenth of a small network's time to the longest that anybody waits: a latency that falls
# off either end is one that no alert sees.
_SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)

UNKNOWN_MODEL = "unknown"
NO_VARIANT = "none"
NO_KEY = "none"
OTHER_KEYS = "others"

_MOST_KEYS = 500


class Metrics:
    """Counts what happens. Everything but the gauges is called on the event loop's thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.statistics = Statistics()
        self._models: frozenset[str] = frozenset()
        self._keys: frozenset[str] = frozenset()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="gearshift", registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, namespace="gearshift", registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                name, text, labels, namespace="gearshift", registry=registry, buckets=buckets
            )

        self._requests = counter(
            "requests",
            "Requests to infer, by how they ended: ok, or an error's code.",
            "model",
            "variant",
            "outcome",
        )
        self._latency = histogram(
            "request_seconds",
            "From a request's last byte to its answer.",
            _SECONDS,
            "model",
            "variant",
            "outcome",
        )
        self._queue = histogram(
            "queue_seconds", "Time waited for a lane.", _SECONDS, "model", "variant"
        )
        self._infer = histogram(
            "batch_seconds", "Time of a batch on its lane.", _SECONDS, "model", "variant"
        )
        self._rows = histogram("batch_rows", "Rows of a batch.", _ROWS, "model", "variant")
        self._decisions = counter(
            "decisions", "Decisions, by reason, or by verdict where refused.", "model", "reason"
        )
        self._shed = counter(
            "shed",
            "Requests refused without a decision of their own, by one that still stood.",
            "model",
        )
        self._misses = counter(
            "constraint_misses",
            "Decisions that refused, by each constraint that kept a variant from answering.",
            "model",
            "constraint",
        )
        self._relaxed = counter(
            "relaxed",
            "Constraints that gave way because the caller let them.",
            "model",
            "constraint",
        )
        self._deadlines = counter(
            "deadlines",
            "Requests with a deadline: kept, missed (answered 504), or relaxed.",
            "model",
            "outcome",
        )
        self._charged = counter(
            "charged_usd", "What answered requests were charged, in USD.", "model", "variant"
        )
        self._queued = gauge("queued_requests", "Requests that wait for a lane.")
        self._busy = gauge("busy_lanes", "Lanes that run a batch.")
        self._lost = gauge("lost_lanes", "Lanes that ended or hung and are being restored.")
        self._losses = counter("lane_losses", "Times that a lane ended or was given up.")
        self._batch_failures = counter(
            "batch_failures", "Batches that failed, at least in part.", "model", "variant"
        )
        self._retries = counter(
            "retries", "Requests run again after this variant, or its lane, failed.",
            "model", "variant",
        )  # fmt: skip
        self._breakers = gauge(
            "breaker", "A variant's breaker: 0 closed, 1 half-open, 2 open.", "model", "variant"
        )
        self._lanes = gauge("lanes", "Lanes there are.")
        self._ready = gauge(
            "variant_ready", "1 when the variant is loaded, warm and healthy.", "model", "variant"
        )
        self._loads = counter(
            "variant_loads", "Times that a variant was loaded, the first included.",
            "model", "variant",
        )  # fmt: skip
        self._evictions = counter(
            "variant_evictions", "Times that a variant was freed for others under the limit.",
            "model", "variant",
        )  # fmt: skip
        self._load_failures = counter(
            "variant_load_failures", "Times that a variant could not be loaded or warmed.",
            "model", "variant",
        )  # fmt: skip
        self._freed = counter(
            "variant_frees",
            "Times that a build was freed as it was replaced, removed or taken out of service.",
            "model", "variant",
        )  # fmt: skip
        self._store_readable = gauge(
            "store_readable", "0 when the store cannot be read: what is loaded serves on."
        )
        self._store_readable.set(1)
        self._shadow_rows = counter(
            "shadow_rows",
            "Rows answered by a shadow as well: agree, or disagree, with the answer that was sent.",
            "model", "variant", "outcome",
        )  # fmt: skip
        self._shadow_requests = counter(
            "shadow_requests",
            "Requests picked for a shadow: compared, failed, lost (its process ended, or it did "
            "not come back), or skipped (lanes were busy, or it is not loaded).",
            "model", "variant", "outcome",
        )  # fmt: skip
        self._loaded_bytes = gauge(
            "loaded_bytes", "Memory that the loaded variants take, by their cards, on all lanes."
        )
        self._key_requests = counter(
            "key_requests",
            "Requests with a key, by how the door answered: entered, or an error's code.",
            "key",
            "outcome",
        )
        self._key_charged = counter(
            "key_charged_usd", "What the requests of a key were charged, in USD.", "key"
        )
        self._ledger_up = gauge(
            "ledger_up", "1 when keys and what they spent can be read and written."
        )
        up = gauge("worker_up", "1 while the worker takes requests and answers the others.")
        up.set(1)
        self._restarts = counter("worker_restarts", "Times that a worker was started again.")
        self._looked_up = counter(
            "response_cache",
            "Requests looked up in the response cache, by outcome: hit or miss.",
            "model", "outcome",
        )  # fmt: skip
        self._cached_bytes = gauge(
            "response_cache_bytes", "Memory that the response cache takes, about."
        )
        info = Info("build", "What runs.", namespace="gearshift", registry=registry)
        info.info({"version": VERSION})

        # Looking a child up by its labels costs as much as using it.
        self._answer_children = cache(self._of_answers)
        self._batch_children = cache(self._of_batches)
        self._shed_children = cache(self._of_shed)
        self._deadline_child = cache(self._deadlines.labels)
        self._key_child = cache(self._of_key)

    def watch(
        self,
        *,
        queued: Callable[[], float],
        busy_lanes: Callable[[], float],
        lost_lanes: Callable[[], float],
        loaded_bytes: Callable[[], float],
        lanes: int,
    ) -> None:
        """Read the gauges of queue, lanes and memory from these functions at each scrape."""
        self._queued.set_function(queued)
        self._busy.set_function(busy_lanes)
        self._lost.set_function(lost_lanes)
        self._loaded_bytes.set_function(loaded_bytes)
        self._lanes.set(lanes)

    def watch_variants(
        self,
        model: str,
        variants: Iterable[str],
        ready: Callable[[str], bool],
        breaker: Callable[[str], Breaker],
    ) -> None:
        """Count requests for `model` under its own name, and report which variants are ready."""
        self._models |= {model}
        for variant in variants:
            child = self._ready.labels(model, variant)
            child.set_function(lambda variant=variant: float(ready(variant)))  # type: ignore[misc]
            self._breakers.labels(model, variant).set_function(
                lambda variant=variant: float(STATES.index(breaker(variant).state))  # type: ignore[misc]
            )

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """One request was answered, `total_s` after its last byte."""
        decision = response.decision
        requests, latency, queue, charged, chosen, totals = self._answer_children(
            request.model, decision.variant, decision.reason
        )
        totals.answered(request.rows, response, total_s)
        requests.inc()
        latency.observe(total_s)
        queue.observe(response.queue_ms / 1000)
        charged.inc(response.cost_usd_per_million / 1e6)
        chosen.inc()
        for constraint in decision.relaxed:
            self._relaxed.labels(request.model, constraint).inc()
        if request.constraints.max_latency_ms is not None:
            outcome = "relaxed" if "latency" in decision.relaxed else "kept"
            self._deadline_child(request.model, outcome).inc()

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        origin: Origin = UNTOLD,  # noqa: ARG002
        request: InferRequest | None = None,  # noqa: ARG002
    ) -> None:
        """One request ended without an answer, `total_s` after its last byte."""
        model = self._known(model)
        self._requests.labels(model, NO_VARIANT, error.code).inc()
        self._latency.labels(model, NO_VARIANT, error.code).observe(total_s)
        if isinstance(error, EngineFailed) and error.variant:
            self.statistics.totals(model, error.variant).failure(total_s)
        if isinstance(error, DeadlinePassed):
            self._deadlines.labels(model, "missed").inc()

    def undecided(self, model: str) -> Counter:
        """Counts requests that a refusal ended which was decided before."""
        return self._shed.labels(self._known(model))

    def shed(self, model: str, error: GearshiftError) -> Callable[[], None]:
        """What counts one such request, and how it ended."""
        requests, latency, shed = self._shed_children(self._known(model), error.code)

        def count() -> None:
            requests.inc()
            latency.observe(0.0)
            shed.inc()

        return count

    def batch(self, model: str, variant: str, rows: int, seconds: float) -> None:
        """One batch ran."""
        time, size, totals = self._batch_children(model, variant)
        totals.batch(rows, seconds)
        time.observe(seconds)
        size.observe(rows)

    def batch_failed(self, model: str, variant: str, retried: int) -> None:
        """One batch failed at least in part; so many of its requests are run again."""
        self._batch_failures.labels(model, variant).inc()
        if retried:
            self._retries.labels(model, variant).inc(retried)

    def lane_lost(self) -> None:
        """A lane's process ended, or its engine did not come back."""
        self._losses.inc()

    def loaded(self, model: str, variant: str) -> None:
        """One variant was loaded."""
        self._loads.labels(model, variant).inc()

    def evicted(self, model: str, variant: str) -> None:
        """One variant was freed."""
        self._evictions.labels(model, variant).inc()

    def load_failed(self, model: str, variant: str) -> None:
        """One variant could not be loaded, or not be warmed."""
        self._load_failures.labels(model, variant).inc()

    def freed(self, model: str, variant: str) -> None:
        """One build that was replaced, removed or taken out of service is out of memory."""
        self._freed.labels(model, variant).inc()

    def unwatch_variant(self, model: str, variant: str) -> None:
        """The variant is not in the store any more: it is neither ready nor not."""
        with contextlib.suppress(KeyError):
            self._ready.remove(model, variant)

    def store(self, readable: bool) -> None:
        """Whether the store can be read."""
        self._store_readable.set(readable)

    def shadowed(self, model: str, variant: str, outcome: str, agree: int, disagree: int) -> None:
        """One request was picked for a shadow, and so many of its rows were compared."""
        self._shadow_requests.labels(model, variant, outcome).inc()
        self._shadow_rows.labels(model, variant, "agree").inc(agree)
        self._shadow_rows.labels(model, variant, "disagree").inc(disagree)

    def looked_up(self, model: str, variant: str, *, found: bool) -> None:
        """One request that `variant` shall answer was looked up in the response cache."""
        self._looked_up.labels(model, "hit" if found else "miss").inc()
        if not found:
            self.statistics.totals(model, variant).misses += 1

    def watch_cache(self, kept_bytes: Callable[[], float]) -> None:
        """Read what the response cache takes from this function at each scrape."""
        self._cached_bytes.set_function(kept_bytes)

    def refused(self, decision: Decision) -> None:
        """One request was refused by a decision."""
        self._decisions.labels(decision.model, decision.verdict).inc()
        for constraint in {refusal.constraint for refusal in decision.refused}:
            self._misses.labels(decision.model, constraint).inc()

    def key_entered(self, key: str) -> None:
        """One request was let in by the key of this name."""
        self._key_child(self._key_label(key), "entered")[0].inc()

    def key_refused(self, key: str, code: str) -> None:
        """One request was kept out; `key` is empty where it had none that is known."""
        self._key_child(self._key_label(key) if key else NO_KEY, code)[0].inc()

    def key_left(self, key: str, usd: float) -> None:
        """One request that had been let in has ended, and was charged."""
        if usd:
            self._key_child(self._key_label(key), "entered")[1].inc(usd)

    def ledger_up(self, up: bool) -> None:
        """Whether the ledger can be used."""
        self._ledger_up.set(up)

    def _key_label(self, key: str) -> str:
        """The name of a key, while there are not too many: each is a series for ever."""
        if key not in self._keys:
            if len(self._keys) >= _MOST_KEYS:
                return OTHER_KEYS
            self._keys |= {key}
        return key

    def _of_key(self, key: str, outcome: str) -> tuple[Counter, Counter]:
        return self._key_requests.labels(key, outcome), self._key_charged.labels(key)

    def restarted(self, times: int) -> None:
        """This process is a worker whose place was filled again so many times."""
        self._restarts.inc(times)

    def exposition(self, accept: str, of: Collector | None = None) -> tuple[bytes, str]:
        """The page that Prometheus scrapes in the format that `accept` asks for, and its type.

        Args:
            of: what to show instead of this process's own series.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry if of is None else of), content_type

    def _known(self, model: str) -> str:
        return model if model in self._models else UNKNOWN_MODEL

    def _of_answers(
        self, model: str, variant: str, reason: str
    ) -> tuple[Counter, Histogram, Histogram, Counter, Counter, Totals]:
        return (
            self._requests.labels(model, variant, "ok"),
            self._latency.labels(model, variant, "ok"),
            self._queue.labels(model, variant),
            self._charged.labels(model, variant),
            self._decisions.labels(model, reason),
            self.statistics.totals(model, variant),
        )

    def _of_shed(self, model: str, code: str) -> tuple[Counter, Histogram, Counter]:
        return (
            self._requests.labels(model, NO_VARIANT, code),
            self._latency.labels(model, NO_VARIANT, code),
            self._shed.labels(model),
        )

    def _of_batches(self, model: str, variant: str) -> tuple[Histogram, Histogram, Totals]:
        return (
            self._infer.labels(model, variant),
            self._rows.labels(model, variant),
            self.statistics.totals(model, variant),
        )
