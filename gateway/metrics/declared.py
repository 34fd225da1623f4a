"""Every metric there is, as data: name, type, what it says, labels and buckets.

Names follow Prometheus's rules (https://prometheus.io/docs/practices/naming): base units, `_total`
on what only grows. The values of every label come from the store, from this code or from the
operator, never from a request: a model's name out of a path counts as "unknown" until the store has
it. `docs/reference/metrics.md` is written from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary", "info"]

PREFIX = "gearshift_"

# From what the smallest network's answer takes to the longest that anybody waits: a latency that
# falls off either end is one that no alert sees.
SECONDS = (
    0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1,
    0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)
# Dense below 1, where most answers are, and just above it, where a promise is broken by little.
RATIOS = (
    0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0,
)  # fmt: skip

LABELS: Mapping[str, str] = {
    "model": 'a model of the store; "unknown" for what its sender made up',
    "variant": 'a variant of the model; "none" where nothing answered',
    "tenant": 'the class of tenants of the key; "open" without keys, "none" for who had no key '
    'that is known, "others" beyond the first 100 classes',
    "key": 'the name of a key; "none" for who had none that is known, "others" beyond the first '
    "500",
    "outcome": "how it ended; the text says what there is",
    "reason": "why; the text says what there is",
    "constraint": "what was demanded: max_latency_ms, min_accuracy, max_cost_usd_per_million, or "
    "variant, ready, canary; where it gave way latency, accuracy or cost",
    "timely": '"true" where the answer came within its deadline or had none, else "false"',
    "source": "the variant that an idle machine would have answered with",
    "target": "the variant that answered",
    "digest": "the first 12 digits of the SHA-256 of the build's manifest",
    "engine": "the engine that runs it",
    "recipe": 'the techniques that made it, joined by "+"; "none" for the network as it came',
    "bound": "low, point or high: the card's figure and the ends of its 95 % interval",
    "quantile": "0.5, 0.95 or 0.99, as the card measured it",
    "version": "Gearshift's",
    "python": "Python's",
    "worker": "only with --workers: the number of the process",
}
"""What the values of each label are."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric.

    Attributes:
        name: without the prefix; as it is scraped, so a counter ends in `_total`.
        text: what it says, as a sentence; the values of `outcome` and `reason` where it has them.
        buckets: upper bounds, of a histogram.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As it is scraped."""
        return PREFIX + self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its samples."""
        if self.kind == "histogram":
            return tuple(f"{self.full_name}_{suffix}" for suffix in ("bucket", "count", "sum"))
        return (self.full_name,)


_MV = ("model", "variant")

METRICS: tuple[Declared, ...] = (
    # Requests
    Declared(
        "requests_total",
        "counter",
        "Requests to infer, by how they ended: ok, or an error's code; the reason is the "
        "decision's, or its verdict where refused, or none where nothing was decided.",
        (*_MV, "outcome", "reason", "tenant"),
    ),
    Declared(
        "request_seconds",
        "histogram",
        "From a request's last byte to its answer.",
        (*_MV, "outcome"),
        SECONDS,
    ),
    Declared("queue_seconds", "histogram", "Time waited for a lane.", _MV, SECONDS),
    Declared(
        "infer_seconds",
        "histogram",
        "Time of the batch that a request was answered by, as the request saw it.",
        _MV,
        SECONDS,
    ),
    Declared(
        "overhead_seconds",
        "histogram",
        "What is left of an answered request's time without queue and inference.",
        ("model",),
        SECONDS,
    ),
    Declared(
        "decisions_total",
        "counter",
        "Decisions, by reason, or by verdict where refused.",
        ("model", "reason"),
    ),
    Declared(
        "constraint_misses_total",
        "counter",
        "Decisions that refused, by each constraint that kept a variant from answering.",
        ("model", "constraint"),
    ),
    Declared(
        "relaxed_total",
        "counter",
        "Constraints that gave way because the caller let them.",
        ("model", "constraint"),
    ),
    Declared(
        "shed_total",
        "counter",
        "Requests refused without a decision of their own, by one that still stood.",
        ("model",),
    ),
    Declared(
        "response_cache_total",
        "counter",
        "Requests looked up in the response cache, by outcome: hit or miss.",
        ("model", "outcome"),
    ),
    Declared("response_cache_bytes", "gauge", "Memory that the response cache takes, about."),
    # Promises
    Declared(
        "deadlines_total",
        "counter",
        "Requests with a deadline: kept, missed (answered 504, or its caller left when nine tenths "
        "of it had passed), relaxed (late, as its caller let it be), shed (answered 429) or broken "
        "(it ended in an error of the server's own: internal, engine-failed or not-ready).",
        ("model", "outcome", "tenant"),
    ),
    Declared(
        "accuracy_floors_total",
        "counter",
        "Answers to requests with an accuracy floor: kept, or relaxed (below it, as the caller let "
        "it be).",
        ("model", "outcome", "tenant"),
    ),
    Declared(
        "accuracy_credit_total",
        "counter",
        "The accuracy on the card of what answered, summed over answers.",
        ("model", "timely"),
    ),
    Declared(
        "reference_accuracy", "gauge", "Accuracy of the model's reference variant.", ("model",)
    ),
    Declared(
        "accuracy_floor",
        "gauge",
        "The floor that holds for a request that demands nothing; absent where there is none.",
        ("model",),
    ),
    Declared(
        "predictions_total",
        "counter",
        "Requests that were told how long they would take: within that, or exceeded.",
        (*_MV, "outcome"),
    ),
    Declared(
        "prediction_ratio",
        "histogram",
        "Latency as a share of what the request was told.",
        _MV,
        RATIOS,
    ),
    Declared(
        "promised_percentile",
        "gauge",
        "The share of predictions that is to be kept, as the operator set it.",
    ),
    # Cost
    Declared(
        "charged_usd_total",
        "counter",
        "What answered requests were charged, in USD.",
        (*_MV, "tenant"),
    ),
    Declared(
        "reference_usd_total",
        "counter",
        "What the same requests would have been charged on the reference variant, in USD.",
        ("model",),
    ),
    # Lanes and queues
    Declared("batch_seconds", "histogram", "Time of a batch on its lane.", _MV, SECONDS),
    Declared("batch_rows", "histogram", "Rows of a batch.", _MV, ROWS),
    Declared(
        "batch_failures_total", "counter", "Batches that failed, at least in part.", _MV
    ),
    Declared(
        "retries_total", "counter", "Requests run again after this variant, or its lane, failed.",
        _MV,
    ),
    Declared("lanes", "gauge", "Lanes there are."),
    Declared("busy_lanes", "gauge", "Lanes that run a batch."),
    Declared("lost_lanes", "gauge", "Lanes that ended or hung and are being restored."),
    Declared(
        "lane_busy_seconds_total", "counter", "Time that lanes ran batches, failed ones included."
    ),
    Declared("lane_losses_total", "counter", "Times that a lane ended or was given up."),
    Declared(
        "queued_requests", "gauge", "Requests that wait for a lane, or for a variant.", ("model",)
    ),
    Declared(
        "queue_age_seconds",
        "gauge",
        "Age of the oldest request that waits for a lane; 0 where none does.",
        ("model",),
    ),
    Declared(
        "shifts_total",
        "counter",
        "Answers by another variant than an idle machine would have given. Reasons: the decision's "
        "where it is shifted-at-dispatch, retried or relaxed; under-load where the queue left that "
        "variant no time; not-ready where it was not loaded and healthy; deadline where it has "
        "lately been too slow.",
        ("model", "source", "target", "reason"),
    ),
    # Variants
    Declared(
        "variant_info",
        "info",
        "The build that serves as a variant.",
        (*_MV, "digest", "engine", "recipe"),
    ),
    Declared(
        "variant_ready", "gauge", "1 when the variant is loaded, warm and healthy.", _MV
    ),
    Declared("breaker", "gauge", "A variant's breaker: 0 closed, 1 half-open, 2 open.", _MV),
    Declared(
        "variant_loads_total", "counter",
        "Times that a variant was loaded, the first included.", _MV,
    ),
    Declared(
        "variant_load_failures_total", "counter",
        "Times that a variant could not be loaded or warmed.", _MV,
    ),
    Declared(
        "variant_evictions_total", "counter",
        "Times that a variant was freed for others under the limit.", _MV,
    ),
    Declared(
        "variant_frees_total", "counter",
        "Times that a build was freed as it was replaced, removed or taken out of service.", _MV,
    ),
    Declared(
        "variant_swaps_total", "counter",
        "Times that another build of a variant took the place of the one that served.", _MV,
    ),
    Declared(
        "card_accuracy", "gauge", "Accuracy on the variant's card.", (*_MV, "bound")
    ),
    Declared(
        "card_latency_seconds", "summary",
        "Time of a batch of one row on the variant's card.", (*_MV, "quantile"),
    ),
    Declared(
        "card_cost_usd_per_million", "gauge",
        "What a million requests of one row cost when each runs alone, by the variant's card.", _MV,
    ),
    Declared(
        "loaded_bytes", "gauge",
        "Memory that the loaded variants take, by their cards, on all lanes.",
    ),
    Declared(
        "store_readable", "gauge", "0 when the store cannot be read: what is loaded serves on."
    ),
    Declared(
        "shadow_rows_total", "counter",
        "Rows answered by a shadow as well: agree, or disagree, with the answer that was sent.",
        (*_MV, "outcome"),
    ),
    Declared(
        "shadow_requests_total", "counter",
        "Requests picked for a shadow: compared, failed, lost (its process ended, or it did "
        "not come back), or skipped (lanes were busy, or it is not loaded).",
        (*_MV, "outcome"),
    ),
    # Keys
    Declared(
        "key_requests_total", "counter",
        "Requests with a key, by how the door answered: entered, or an error's code.",
        ("key", "outcome"),
    ),
    Declared(
        "key_charged_usd_total", "counter", "What the requests of a key were charged, in USD.",
        ("key",),
    ),
    Declared(
        "ledger_up", "gauge", "1 when keys and what they spent can be read and written."
    ),
    # The server
    Declared(
        "worker_up", "gauge", "1 while the worker takes requests and answers the others."
    ),
    Declared("worker_restarts_total", "counter", "Times that a worker was started again."),
    Declared(
        "access_log_dropped_total", "counter",
        "Lines of the access log that were lost: one too many for what writes them.",
    ),
    Declared(
        "traces_dropped_total", "counter",
        "Traced requests whose traces were lost: one too many, or refused by the collector.",
    ),
    Declared("build_info", "info", "What runs.", ("version", "python")),
)  # fmt: skip

BY_NAME: Mapping[str, Declared] = {metric.name: metric for metric in METRICS}
