"""What each variant did since the server started, as the protocol's statistics extension tells it.

The specification: Triton's "Statistics Extension"; REST and gRPC render the same value. Counted
apart from the metrics, because the extension sums by request what the metrics keep by batch. Like
every count it is of this process alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.messages import InferResponse


class Timed(NamedTuple):
    """How often something happened, and nanoseconds it took together."""

    count: int  # type: ignore[assignment]  # the extension's word, and a method of tuples
    ns: int

    def as_json(self) -> dict[str, int]:
        """As the extension's `$duration_stat`."""
        return {"count": self.count, "ns": self.ns}


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """Batches of one size."""

    batch_size: int
    compute_infer: Timed

    def as_json(self) -> dict[str, Any]:
        """As the extension's `$batch_stat`. Gathering inputs is within the time of the batch."""
        none = Timed(self.compute_infer.count, 0).as_json()
        return {
            "batch_size": self.batch_size,
            "compute_input": none,
            "compute_infer": self.compute_infer.as_json(),
            "compute_output": none,
        }


@dataclass(frozen=True, slots=True)
class VariantStatistics:
    """One variant's, as the extension's `$model_stat` has them.

    Attributes:
        last_inference: milliseconds since the epoch of its last batch; 0 before the first.
        inference_count: rows that were answered.
        execution_count: batches that ran.
        success, queue, compute_infer: one each answered request; the last is the time of the batch
            that it was in, inputs and outputs included.
        fail: requests that the variant's engine failed. What is refused before a variant is chosen
            is no variant's failure: the metrics count it.
        cache_hit, cache_miss: requests answered from the response cache, and those that ran
            because they were not in it; hits count as successes too.
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    success: Timed
    fail: Timed
    queue: Timed
    compute_infer: Timed
    cache_hit: Timed
    cache_miss: Timed
    batches: tuple[BatchStatistics, ...]

    @property
    def compute_input(self) -> Timed:
        """Within `compute_infer`."""
        return Timed(self.compute_infer.count, 0)

    @property
    def compute_output(self) -> Timed:
        """Within `compute_infer`."""
        return Timed(self.compute_infer.count, 0)

    def as_json(self) -> dict[str, Any]:
        """As the extension's `$model_stat`."""
        return {
            "name": self.name,
            "version": self.version,
            "last_inference": self.last_inference,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {name: getattr(self, name).as_json() for name in INFER_STATISTICS},
            "batch_stats": [batch.as_json() for batch in self.batches],
            "memory_usage": [],
        }


INFER_STATISTICS = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)
"""The members of `inference_stats`, each an attribute of `VariantStatistics`."""


class Totals:
    """One variant's running totals; times in seconds."""

    __slots__ = (
        "batches",
        "failed",
        "failed_s",
        "hit_s",
        "hits",
        "infer_s",
        "last_s",
        "misses",
        "queue_s",
        "ran",
        "rows",
        "total_s",
    )

    def __init__(self) -> None:
        self.ran = self.hits = self.misses = self.failed = self.rows = 0
        self.total_s = self.queue_s = self.infer_s = self.hit_s = self.failed_s = 0.0
        self.last_s = 0.0
        self.batches: dict[int, list[float]] = {}

    def answered(self, rows: int, response: InferResponse, total_s: float) -> None:
        """One request was answered, by a batch or from the response cache."""
        if response.cached:
            self.hits += 1
            self.hit_s += total_s
            return
        self.ran += 1
        self.rows += rows
        self.total_s += total_s
        self.queue_s += response.queue_ms / 1000
        self.infer_s += response.infer_ms / 1000

    def failure(self, total_s: float) -> None:
        """One request that the variant's engine failed."""
        self.failed += 1
        self.failed_s += total_s

    def batch(self, rows: int, seconds: float) -> None:
        """One batch ran, just now."""
        self.last_s = time.monotonic()
        try:
            size = self.batches[rows]
        except KeyError:
            size = self.batches[rows] = [0, 0.0]
        size[0] += 1
        size[1] += seconds

    def value(self, model: str, variant: str) -> VariantStatistics:
        """What was counted so far."""
        last_ms = 0.0
        if self.last_s:
            last_ms = (time.time() - (time.monotonic() - self.last_s)) * 1000
        return VariantStatistics(
            name=model,
            version=variant,
            last_inference=round(last_ms),
            inference_count=self.rows,
            execution_count=int(sum(count for count, _ in self.batches.values())),
            success=_timed(self.ran + self.hits, self.total_s + self.hit_s),
            fail=_timed(self.failed, self.failed_s),
            queue=_timed(self.ran, self.queue_s),
            compute_infer=_timed(self.ran, self.infer_s),
            cache_hit=_timed(self.hits, self.hit_s),
            cache_miss=Timed(self.misses, 0),
            batches=tuple(
                BatchStatistics(rows, _timed(count, seconds))
                for rows, (count, seconds) in sorted(self.batches.items())
            ),
        )


class Statistics:
    """The totals of every variant. Called on the event loop's thread alone."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str], Totals] = {}

    def totals(self, model: str, variant: str) -> Totals:
        """The totals to count in; both names come from the store."""
        return self._totals.setdefault((model, variant), Totals())

    def of(self, model: str, variants: Iterable[str]) -> list[VariantStatistics]:
        """What `variants` did, in their order; nothing yet is zeros."""
        return [
            self._totals.get((model, variant), Totals()).value(model, variant)
            for variant in variants
        ]


def _timed(count: float, seconds: float) -> Timed:
    return Timed(int(count), round(seconds * 1e9))
