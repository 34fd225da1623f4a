"""The fleet: variants loaded into engines, warmed, and known to be ready or to have failed.

One program for each lane and variant. A variant serves only after it has answered on every lane,
for every batch size, with the shape and datatype that its card promises: a failed warm-up keeps it
out, and says why.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from gateway import catalog
from gateway.catalog import Catalog, Entry
from gateway.engines import NUMPY_TYPES, EngineError, Program, Tensor, blank
from gateway.hosts import Host
from gateway.lease import Loaded
from router.card import TensorSpec, VariantCard
from router.errors import UnknownModel
from router.menu import Menu, Percentile
from router.residency import Key

_LOG = logging.getLogger(__name__)

_EVICTED = "the memory limit leaves no room for it beside what is wanted more"


@dataclass(frozen=True, slots=True)
class VariantState:
    """What a variant is doing; `why` says it for one that failed or was evicted.

    One that the memory limit keeps out is "evicted", also while it is being loaded again: the
    server is not starting, and is as ready as it was.
    """

    variant: str
    state: Literal["loading", "ready", "failed", "evicted"]
    why: str = ""


class ServedModel:
    """One model: its cards and menu, which of its variants are ready, and their programs.

    Attributes:
        cards: every variant that is whole in the store, by name.
        ready: variants that a request may be routed to.
        runnable: variants that a lane may run: those, and one that is leaving, until no queued
            request needs it any more.
        loaded: for each variant that is runnable, the build that serves, with a program a lane.
    """

    def __init__(self, entries: Mapping[str, Entry], menu: Menu) -> None:
        card = next(iter(entries.values())).card
        self.name = card.model
        self.reference = card.reference
        self.inputs: tuple[TensorSpec, ...] = card.inputs
        self.outputs: tuple[TensorSpec, ...] = card.outputs
        self.inputs_by_name = {spec.name: spec for spec in card.inputs}
        self.outputs_by_name = {spec.name: spec for spec in card.outputs}
        self.equal_sizes = card.equal_sizes()
        self.labels = card.task.labels
        self.menu = menu
        self.cards = {name: entry.card for name, entry in entries.items()}
        self.states = {name: VariantState(name, "loading") for name in entries}
        self.loaded: dict[str, Loaded] = {}
        self.ready: frozenset[str] = frozenset()
        self.runnable: frozenset[str] = frozenset()
        self._entries = entries
        self._settling = threading.Lock()  # variants load side by side

    def is_ready(self, variant: str) -> bool:
        """Whether `variant` is loaded, warm and healthy."""
        return variant in self.ready

    def resolve(self, variant: str) -> VariantCard:
        """The card of `variant`, which may be an alias.

        Raises:
            UnknownVariant: there is none.
        """
        return self.cards[self.menu.resolve(variant).name]

    def load(
        self, variant: str, hosts: Sequence[Host], *, threads: int, max_batch: int, trust: bool
    ) -> None:
        """Load and warm `variant` on every lane; then it is ready, or failed with a reason."""
        entry = self._entries[variant]
        programs: list[Program] = []
        try:
            for host in hosts:
                program = host.load(entry.folder, entry.card, threads=threads, trusted=trust)
                programs.append(program)
                warm_up(program, entry.card, max_batch)
        except Exception as error:
            # Whatever an engine raises while it starts is this variant's failure, not the
            # server's: the others serve without it.
            for program in programs:
                program.close()
            why = str(error) if isinstance(error, EngineError) else repr(error)
            self.states[variant] = VariantState(variant, "failed", why)
            _LOG.error("%s/%s will not serve: %s", self.name, variant, why)
            return
        with self._settling:
            self.loaded[variant] = Loaded(entry.card, programs)
            self.runnable = self.runnable | {variant}
            self._offer(variant)

    def evict(self, variant: str) -> None:
        """Route nothing to `variant` any more; what is queued for it may still run."""
        with self._settling:
            self.ready = self.ready - {variant}
            self.states[variant] = VariantState(variant, "evicted", _EVICTED)

    def retire(self, variant: str) -> None:
        """Let no lane start a batch of `variant`, which was evicted, any more."""
        with self._settling:
            self.runnable = self.runnable - {variant}

    def reinstate(self, variant: str) -> None:
        """Take `evict` and `retire` back; `free` has not been called."""
        with self._settling:
            self.runnable = self.runnable | {variant}
            self._offer(variant)

    def free(self, variant: str) -> None:
        """Close the programs of `variant`, which was evicted and which nothing uses any more."""
        with self._settling:
            self.runnable = self.runnable - {variant}
            loaded = self.loaded.pop(variant)
        loaded.close()

    def _offer(self, variant: str) -> None:
        self.states[variant] = VariantState(variant, "ready")
        self.ready = self.ready | {variant}


class Fleet:
    """Every model of a store."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models = models

    @classmethod
    def of(
        cls, store: Catalog, *, percentile: Percentile, usd_per_lane_hour: float, max_batch: int
    ) -> Fleet:
        """The fleet of a catalogue; nothing is loaded yet."""
        return cls(
            {
                name: ServedModel(
                    entries,
                    catalog.menu_of(
                        entries,
                        percentile=percentile,
                        usd_per_lane_hour=usd_per_lane_hour,
                        max_batch=max_batch,
                    ),
                )
                for name, entries in store.models.items()
            }
        )

    def names(self) -> list[str]:
        """The models, in the order of their names."""
        return sorted(self._models)

    def models(self) -> list[ServedModel]:
        """As `names`."""
        return [self._models[name] for name in self.names()]

    def model(self, name: str) -> ServedModel:
        """The model called `name`.

        Raises:
            UnknownModel: there is none; the message lists those there are.
        """
        try:
            return self._models[name]
        except KeyError:
            known = ", ".join(self.names())
            raise UnknownModel(f"unknown model {name!r}; there are {known}") from None

    @property
    def ready(self) -> bool:
        """Whether every variant is settled and every model has one that serves."""
        return all(
            model.ready and all(state.state != "loading" for state in model.states.values())
            for model in self._models.values()
        )

    def load(
        self,
        hosts: Sequence[Host],
        *,
        threads: int,
        max_batch: int,
        trust: bool,
        chosen: Collection[Key] | None = None,
    ) -> None:
        """Load every variant, the most accurate of each model first; blocks until all settled.

        Args:
            chosen: the variants to load instead; the others count as evicted.
        """
        with ThreadPoolExecutor(max_workers=len(hosts), thread_name_prefix="load") as pool:
            for model in self.models():
                for offer in model.menu.offers:
                    if chosen is not None and (model.name, offer.name) not in chosen:
                        model.evict(offer.name)
                        continue
                    pool.submit(
                        model.load,
                        offer.name,
                        hosts,
                        threads=threads,
                        max_batch=max_batch,
                        trust=trust,
                    )

    def close(self) -> None:
        """Free every program."""
        for model in self._models.values():
            model.ready = model.runnable = frozenset()
            for loaded in model.loaded.values():
                loaded.close()
            model.loaded.clear()


def warm_up(program: Program, card: VariantCard, max_batch: int) -> None:
    """Run every batch size once, so that no request is the first of its size.

    Raises:
        EngineError: it answered with something else than its card promises.
    """
    for rows in range(1, max_batch + 1):
        inputs = {spec.name: _blank(spec, rows) for spec in card.inputs}
        check_outputs(program.infer(inputs), card.outputs, rows)


def check_outputs(outputs: Mapping[str, Tensor], specs: tuple[TensorSpec, ...], rows: int) -> None:
    """Hold what an engine answered to what was promised.

    Raises:
        EngineError: an output is missing, or has another shape or datatype.
    """
    for spec in specs:
        tensor = outputs.get(spec.name)
        if tensor is None:
            raise EngineError(f"output {spec.name!r} is missing")
        expected = (rows, *spec.shape[1:])
        if len(tensor.shape) != len(expected) or any(
            wanted not in (size, -1) for size, wanted in zip(tensor.shape, expected, strict=True)
        ):
            raise EngineError(f"output {spec.name!r} has shape {tensor.shape}, expected {expected}")
        if tensor.dtype != NUMPY_TYPES[spec.datatype]:
            raise EngineError(
                f"output {spec.name!r} has datatype {tensor.dtype}, expected {spec.datatype}"
            )


def _blank(spec: TensorSpec, rows: int) -> Tensor:
    # A free dimension is run at length 1.
    return blank(spec.datatype, (rows, *(max(size, 1) for size in spec.shape[1:])))
