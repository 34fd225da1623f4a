"""Families of series on plain numbers, and how Prometheus's client renders them.

The client's own counters take a lock for each step, which costs an inference ten times what the
step does. Everything here is changed on one thread, the event loop's, and read by another when it
is scraped: a scrape may see a request half counted, never a number half written.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from gateway.messages import Trace
from gateway.metrics.declared import Declared

Row = tuple[tuple[str, ...], float]
"""Label values and value of one series."""
Probe = Callable[[], Iterable[Row]]
"""Tells every series of a family, when it is scraped."""


class Value:
    """One series that counts, or shows a figure."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1.0) -> None:
        """So much more."""
        self.value += by

    def set(self, value: float) -> None:
        """This much."""
        self.value = value


class Spread:
    """One histogram, with the latest traced observation of each bucket."""

    __slots__ = ("_bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """One observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def observe_traced(self, value: float, trace: Trace) -> None:
        """One observation, which a trace tells more of."""
        labels = {"trace_id": trace.trace_id, "span_id": trace.span_id}
        at = bisect_left(self._bounds, value)
        self.exemplars[at] = Exemplar(labels, value, round(time.time(), 3))
        self.observe(value)


class Family:
    """The series of one declared metric.

    Attributes:
        probe: where it is set, what there is comes from it alone.
    """

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.probe: Probe | None = None
        self._values: dict[tuple[str, ...], Value] = {}
        self._spreads: dict[tuple[str, ...], Spread] = {}

    def value(self, *labels: str) -> Value:
        """The series with these label values, in the order of the declaration."""
        assert len(labels) == len(self.declared.labels), self.declared.name
        return self._values.setdefault(labels, Value())

    def spread(self, *labels: str) -> Spread:
        """As `value`, of a histogram."""
        assert len(labels) == len(self.declared.labels), self.declared.name
        return self._spreads.setdefault(labels, Spread(self.declared.buckets))

    def metric(self) -> Metric:
        """As the client renders it."""
        declared = self.declared
        full = declared.full_name
        name = full.removesuffix("_total" if declared.kind == "counter" else "_info")
        metric = Metric(name, declared.text, declared.kind)
        for values, value in self._shown():
            metric.add_sample(full, dict(zip(declared.labels, values, strict=True)), value)
        for values, spread in list(self._spreads.items()):
            _add(metric, dict(zip(declared.labels, values, strict=True)), declared, spread)
        return metric

    def _shown(self) -> Iterator[Row]:
        if self.probe is not None:
            yield from self.probe()
            return
        for labels, each in list(self._values.items()):
            yield labels, each.value


def _add(metric: Metric, labels: dict[str, str], declared: Declared, spread: Spread) -> None:
    full, total_sum = declared.full_name, spread.sum
    sums = list(accumulate(spread.counts))
    bounds = [*map(str, declared.buckets), "+Inf"]
    for at, (bound, count) in enumerate(zip(bounds, sums, strict=True)):
        exemplar = spread.exemplars.get(at)
        metric.add_sample(f"{full}_bucket", {**labels, "le": bound}, count, None, exemplar)
    metric.add_sample(f"{full}_count", labels, sums[-1])
    metric.add_sample(f"{full}_sum", labels, total_sum)


class Families:
    """Every declared metric, as the client's registry collects it."""

    def __init__(self, declared: Iterable[Declared]) -> None:
        self._by_name = {one.name: Family(one) for one in declared}

    def __getitem__(self, name: str) -> Family:
        return self._by_name[name]

    def collect(self) -> Iterator[Metric]:
        """Each family in the order of the declarations, also where it has no series yet."""
        for family in self._by_name.values():
            yield family.metric()
