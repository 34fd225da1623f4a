"""Metrics: what happens is told here, counted, and shown to Prometheus. Start in `declared`.

`Metrics` counts batches, as `Requests` what becomes of requests, and as `Events` what befalls the
rest; `answers` counts what was answered, `variants` reads what variants are when it is asked,
`families` keeps the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gateway.messages import UNTOLD
from gateway.metrics import variants
from gateway.metrics.answers import deadlines_of
from gateway.metrics.events import OTHERS
from gateway.metrics.families import Row, Spread
from gateway.metrics.requests import NO_VARIANT, UNKNOWN_MODEL, Requests
from gateway.metrics.variants import Shown
from gateway.statistics import Totals
from router.constraints import Constraints
from router.deadlines import OWN_ERRORS

__all__ = ["NO_VARIANT", "OTHERS", "UNKNOWN_MODEL", "Metrics", "Shown"]

# What may befall a variant.
_LIFE = (
    "variant_loads_total", "variant_load_failures_total", "variant_evictions_total",
    "variant_frees_total", "variant_swaps_total", "batch_failures_total", "retries_total",
)  # fmt: skip


class Metrics(Requests):
    """Counts what happens. Everything but the gauges is called on the event loop's thread."""

    def __init__(self) -> None:
        super().__init__()
        # Looking a series up by its labels costs as much as using it.
        self._batches: dict[tuple[str, str], tuple[Spread, Spread, Totals]] = {}
        self._busy = self._families["lane_busy_seconds_total"].value()

    def govern(self, default: Constraints, percentile: int) -> None:
        """Judge by these from now on.

        Args:
            default: what holds for a request that demands nothing.
            percentile: of latency, that is promised.
        """
        self.default = default
        self._set("promised_percentile", percentile / 100)

    def watch(
        self,
        *,
        queued: Callable[[], Mapping[str, int]],
        ages_s: Callable[[], Mapping[str, float]],
        busy_lanes: Callable[[], float],
        lost_lanes: Callable[[], float],
        loaded_bytes: Callable[[], float],
        lanes: int,
    ) -> None:
        """Read the gauges of queue, lanes and memory from these functions at each scrape.

        Args:
            queued: requests that wait, by model.
            ages_s: age of the oldest request that waits for a lane, by model.
        """
        for name, by_model in (("queued_requests", queued), ("queue_age_seconds", ages_s)):
            self._families[name].probe = lambda of=by_model: self._of_models(of())
        self._probe("busy_lanes", busy_lanes)
        self._probe("lost_lanes", lost_lanes)
        self._probe("loaded_bytes", loaded_bytes)
        self._set("lanes", lanes)

    def watch_variants(self, shown: Callable[[], Iterable[Shown]]) -> None:
        """Show at each scrape what variants there are."""
        variants.watch(self._families, shown, lambda: self.default)

    def watch_cache(self, kept_bytes: Callable[[], float]) -> None:
        """Read what the response cache takes from this function at each scrape."""
        self._probe("response_cache_bytes", kept_bytes)

    def watch_records(self, lines: Callable[[], int], traces: Callable[[], int]) -> None:
        """Read what access log and traces lost from these functions at each scrape."""
        self._probe("access_log_dropped_total", lines)
        self._probe("traces_dropped_total", traces)

    def watch_model(self, model: str, variants: Iterable[str] = ()) -> None:
        """Count requests for `model` under its own name from now on, and what its variants do."""
        self._models |= {model}
        families = self._families
        # A series that begins at 1 does not seem to grow: the first event would be seen by nobody.
        families["shed_total"].value(model)
        families["reference_usd_total"].value(model)
        families["overhead_seconds"].spread(model)
        for timely in ("true", "false"):
            families["accuracy_credit_total"].value(model, timely)
        deadlines_of(families, model, self._tenant(UNTOLD.tenant))
        for code in OWN_ERRORS:
            self._without_answer(model, code, UNTOLD.tenant)
        for variant in variants:
            for name in _LIFE:
                families[name].value(model, variant)
            for outcome in ("within", "exceeded"):
                families["predictions_total"].value(model, variant, outcome)

    # Lanes

    def batch(self, model: str, variant: str, rows: int, seconds: float) -> None:
        """One batch ran."""
        key = model, variant
        known = self._batches.get(key)
        if known is None:
            known = self._batches[key] = (
                self._families["batch_seconds"].spread(*key),
                self._families["batch_rows"].spread(*key),
                self.statistics.totals(*key),
            )
        time, size, totals = known
        totals.batch(rows, seconds)
        time.observe(seconds)
        size.observe(rows)

    def batch_failed(self, model: str, variant: str, retried: int) -> None:
        """One batch failed at least in part; so many of its requests are run again."""
        self._count("batch_failures_total", model, variant)
        if retried:
            self._families["retries_total"].value(model, variant).inc(retried)

    def lane_ran(self, seconds: float) -> None:
        """A lane was busy with a batch for so long, however it ended."""
        self._busy.value += seconds

    def lane_lost(self) -> None:
        """A lane's process ended, or its engine did not come back."""
        self._count("lane_losses_total")

    def _of_models(self, found: Mapping[str, float]) -> Iterable[Row]:
        return [((model,), found.get(model, 0)) for model in sorted(self._models | set(found))]
