"""The fleet: every model of a store, and which of them are served."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from gateway.hosts import Host
from gateway.lifecycle import change
from gateway.lifecycle.builds import Terms
from gateway.lifecycle.catalog import Catalog
from gateway.lifecycle.served import ServedModel, VariantState
from gateway.lifecycle.warmup import check_outputs, warm_up
from router.errors import NotReady, UnknownModel
from router.menu import Percentile
from router.residency import Key
from router.rollout import AS_IT_LIES, Rollout

__all__ = ["Fleet", "ServedModel", "VariantState", "check_outputs", "warm_up"]


class Fleet:
    """Every model of a store.

    Args:
        models: by name, those without any build left out.
        terms: on which what is found later is offered.
        broken: by model and variant, why nothing of a model can be served.

    Attributes:
        closing: `load` begins with no variant more.
        fixed: nothing can be altered yet, though all of it may be loaded already.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        terms: Terms,
        broken: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._models = dict(models)
        self.terms = terms
        self.broken = {name: dict(whys) for name, whys in (broken or {}).items()}
        self._served: dict[str, ServedModel] = {}
        self.closing = self.fixed = False
        self.changed()

    @classmethod
    def of(
        cls,
        store: Catalog,
        *,
        percentile: Percentile,
        usd_per_lane_hour: float,
        max_batch: int,
        rollout: Callable[[str], Rollout] = lambda _: AS_IT_LIES,
    ) -> Fleet:
        """The fleet of a catalogue; nothing is loaded yet.

        Args:
            rollout: what the operator wants of a model, by its name.
        """
        terms = Terms(percentile, usd_per_lane_hour, max_batch)
        models = {
            name: ServedModel(entries, terms, broken=store.broken.get(name), rollout=rollout(name))
            for name, entries in store.models.items()
        }
        return cls(models, terms, {n: whys for n, whys in store.broken.items() if n not in models})

    def names(self) -> list[str]:
        """The models that are served, in the order of their names."""
        return sorted(self._served)

    def models(self) -> list[ServedModel]:
        """As `names`."""
        return [self._served[name] for name in self.names()]

    def everything(self) -> Mapping[str, ServedModel]:
        """Every model that is in the store or in memory, those that are not served included."""
        return dict(self._models)

    def model(self, name: str) -> ServedModel:
        """The model called `name`.

        Raises:
            UnknownModel: there is none, and the message lists those there are; or the operator has
                unloaded it.
            NotReady: it is in the store, but nothing of it is whole.
        """
        try:
            return self._served[name]
        except KeyError:
            pass
        if name in self.broken:
            whys = "; ".join(f"{variant}: {why}" for variant, why in self.broken[name].items())
            raise NotReady(f"nothing of {name} can be served: {whys}")
        held = self._models.get(name)
        if held is not None and held.builds:
            raise UnknownModel(f"{name!r} is not served: it was unloaded by the operator")
        known = ", ".join(self.names())
        raise UnknownModel(f"unknown model {name!r}; there are {known}")

    @property
    def problems(self) -> tuple[str, ...]:
        """For each folder of the store that cannot be served as it is, which and why."""
        broken = {**self.broken, **{name: model.broken for name, model in self._models.items()}}
        return tuple(
            f"{name}/{variant}: {why}"
            for name, whys in sorted(broken.items())
            for variant, why in sorted(whys.items())
        )

    def doubtful(self) -> list[Key]:
        """Every variant that was whole, and could not be loaded since its files had changed."""
        return [
            (name, variant)
            for name, model in self._models.items()
            for variant, build in model.builds.items()
            if build.stage == "failed" and build.doubtful
        ]

    def held(self, name: str) -> ServedModel:
        """As `model`, for what was promised already: of one that is leaving, too."""
        return self._models[name]

    def add(self, model: ServedModel) -> None:
        """Serve a model that was not there."""
        self._models[model.name] = model
        self.changed()

    def remove(self, model: ServedModel) -> None:
        """Forget a model of which nothing is left, unless another one has its name by now."""
        if self._models.get(model.name) is model:
            del self._models[model.name]
            self.changed()

    def offer_anew(self, terms: Terms) -> None:
        """Offer everything on other terms from now on; what is queued was promised the old ones."""
        self.terms = terms
        for model in self._models.values():
            change.offer_anew(model, terms)

    def changed(self) -> None:
        """Let what was added, removed or withdrawn be seen."""
        self._served = {name: model for name, model in self._models.items() if model.served}

    @property
    def ready(self) -> bool:
        """Whether every variant is settled, every model has one that serves, and may be altered.

        What was found while the server serves does not count until it does: the server is as ready
        as it was.
        """
        return not self.fixed and all(model.settled for model in self._served.values())

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
        left: deque[tuple[ServedModel, str]] = deque()
        for model in self.models():
            for each in model.menu.offers:
                if chosen is not None and (model.name, each.name) not in chosen:
                    model.rest(each.name)
                else:
                    left.append((model, each.name))

        def work() -> None:
            while left and not self.closing:
                with contextlib.suppress(IndexError):  # another took the last one
                    one, variant = left.popleft()
                    one.load(variant, hosts, threads=threads, max_batch=max_batch, trust=trust)

        # The process does not wait for these when it ends: an engine may hang while it loads.
        loaders = [threading.Thread(target=work, name="load", daemon=True) for _ in hosts]
        for thread in loaders:
            thread.start()
        for thread in loaders:
            thread.join()

    def close(self) -> None:
        """Free every program."""
        for model in self._models.values():
            model.ready = model.runnable = frozenset()
            for loaded in (*model.loaded.values(), *[b.loaded for b in model.leaving if b.loaded]):
                loaded.close()
            model.loaded.clear()
            model.leaving.clear()
