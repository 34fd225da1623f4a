"""What befalls variants, keys and the server: each a counter or a gauge of its own."""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.about import VERSION
from gateway.metrics.declared import METRICS
from gateway.metrics.families import Families

NO_KEY = "none"
OTHERS = "others"

_MOST_KEYS = 500


class Events:
    """Counts what happens seldom. All of it is called on the event loop's thread.

    Attributes:
        registry: what Prometheus's client renders.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._families = Families(METRICS)
        self.registry.register(self._families)
        self._keys: frozenset[str] = frozenset()
        for declared in METRICS:  # what has no labels is there from the beginning
            if not declared.labels:
                self._families[declared.name].value()
        self._set("store_readable", 1)
        self._set("worker_up", 1)
        self._families["build_info"].value(VERSION, platform.python_version()).set(1)

    # Variants

    def loaded(self, model: str, variant: str) -> None:
        """One variant was loaded."""
        self._count("variant_loads_total", model, variant)

    def evicted(self, model: str, variant: str) -> None:
        """One variant was freed."""
        self._count("variant_evictions_total", model, variant)

    def load_failed(self, model: str, variant: str) -> None:
        """One variant could not be loaded, or not be warmed."""
        self._count("variant_load_failures_total", model, variant)

    def freed(self, model: str, variant: str) -> None:
        """One build that was replaced, removed or taken out of service is out of memory."""
        self._count("variant_frees_total", model, variant)

    def swapped(self, model: str, variant: str) -> None:
        """Another build of a variant has taken the place of the one that served."""
        self._count("variant_swaps_total", model, variant)

    def store(self, readable: bool) -> None:
        """Whether the store can be read."""
        self._set("store_readable", readable)

    def shadowed(self, model: str, variant: str, outcome: str, agree: int, disagree: int) -> None:
        """One request was picked for a shadow, and so many of its rows were compared."""
        self._count("shadow_requests_total", model, variant, outcome)
        rows = self._families["shadow_rows_total"]
        rows.value(model, variant, "agree").inc(agree)
        rows.value(model, variant, "disagree").inc(disagree)

    # Keys

    def key_entered(self, key: str) -> None:
        """One request was let in by the key of this name."""
        self._count("key_requests_total", self._key(key), "entered")

    def key_refused(self, key: str, code: str) -> None:
        """One request was kept out; `key` is empty where it had none that is known."""
        self._count("key_requests_total", self._key(key) if key else NO_KEY, code)

    def key_left(self, key: str, usd: float) -> None:
        """One request that had been let in has ended, and was charged."""
        if usd:
            self._families["key_charged_usd_total"].value(self._key(key)).inc(usd)

    def ledger_up(self, up: bool) -> None:
        """Whether the ledger can be used."""
        self._set("ledger_up", up)

    # The server

    def restarted(self, times: int) -> None:
        """This process is a worker whose place was filled again so many times."""
        self._families["worker_restarts_total"].value().inc(times)

    def exposition(self, accept: str, of: Collector | None = None) -> tuple[bytes, str]:
        """The page that Prometheus scrapes in the format that `accept` asks for, and its type.

        Args:
            of: what to show instead of this process's own series.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry if of is None else of), content_type

    def _key(self, key: str) -> str:
        """The name of a key, while there are not too many: each is a series for ever."""
        if key not in self._keys:
            if len(self._keys) >= _MOST_KEYS:
                return OTHERS
            self._keys |= {key}
        return key

    def _count(self, name: str, *labels: str) -> None:
        self._families[name].value(*labels).inc()

    def _set(self, name: str, value: float) -> None:
        self._families[name].value().set(value)

    def _probe(self, name: str, value: Callable[[], float]) -> None:
        self._families[name].probe = lambda: [((), float(value()))]
