"""A served model: its builds, which of them a request may be routed to, and their programs.

Each build has a state of `router.lifecycle`. One of a variant's builds is current and on the menu.
Where the folder was replaced, the new build is *incoming* until it is warm on every lane; then they
change places at once, and the old one is *leaving* until nothing that is queued needs it. What the
operator wants beside (`router.rollout`) decides who is on the menu.

Everything that changes a model runs on the event loop's thread, and while lanes look at it under
their lock; loading alone runs on others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.door import Door
from gateway.engines import EngineError
from gateway.execution.lease import Loaded
from gateway.hosts import Host
from gateway.lifecycle import catalog
from gateway.lifecycle.builds import Build, Terms
from gateway.lifecycle.catalog import Entry
from gateway.lifecycle.warmup import FilesChanged, load_programs
from gateway.wire import v2
from router import lifecycle
from router.card import TensorSpec, VariantCard
from router.lifecycle import Event
from router.menu import Menu, Offer, assemble
from router.rollout import AS_IT_LIES, Rollout

_LOG = logging.getLogger(__name__)

_EVICTED = "the memory limit leaves no room for it beside what is wanted more"


@dataclass(frozen=True, slots=True)
class VariantState:
    """What a variant is doing; `why` says it for one that does not serve.

    One that the memory limit keeps out is "evicted", also while it is being loaded again: the
    server is not starting, and is as ready as it was. One that is "ready" may have a `why` too:
    what lies in the store since then, and cannot take its place.
    """

    variant: str
    state: Literal["loading", "ready", "failed", "evicted", "disabled", "shadow"]
    why: str = ""


class ServedModel:
    """One model: its menu, which of its variants are ready, and their programs.

    Attributes:
        builds: the current build of every variant that is whole, whether it serves or not.
        incoming: the builds that take their places once they are warm.
        leaving: builds that no request is routed to any more and that are not freed yet.
        broken: why each variant that cannot be served as it lies in the store cannot.
        loaded: for each variant that is in memory, the build that serves, a program a lane.
        ready: variants that a request may be routed to.
        runnable: variants that a lane may run: those, and one that is leaving, until no queued
            request needs it any more.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        terms: Terms,
        *,
        broken: Mapping[str, str] | None = None,
        rollout: Rollout = AS_IT_LIES,
        late: bool = False,
    ) -> None:
        first = next(iter(entries.values()))
        card = first.card
        self.kind = catalog.kind(first)
        self.name = card.model
        self.reference = card.reference
        self.inputs: tuple[TensorSpec, ...] = card.inputs
        self.outputs: tuple[TensorSpec, ...] = card.outputs
        self.door = Door(card) if card.processor is not None else None
        self.inputs_by_name = self.door.inputs if self.door else v2.Inputs(card.inputs)
        self.outputs_by_name = {spec.name: spec for spec in card.outputs}
        self.equal_sizes = card.equal_sizes()
        self.labels = card.task.labels
        self.terms = terms
        self.rollout = rollout
        self.steered = False
        self.broken = dict(broken or {})
        self.builds = {
            name: Build(entry, terms.offer(entry), late=late) for name, entry in entries.items()
        }
        self.incoming: dict[str, Build] = {}
        self.leaving: list[Build] = []
        self.loaded: dict[str, Loaded] = {}
        self.ready: frozenset[str] = frozenset()
        self.runnable: frozenset[str] = frozenset()
        self.not_worse = catalog.evidence(entries)
        self._settling = threading.Lock()  # variants load side by side
        self.menu: Menu
        self.remake()

    @property
    def cards(self) -> dict[str, VariantCard]:
        """The card of every variant on the menu."""
        return {each.name: self.builds[each.name].entry.card for each in self.menu.offers}

    @property
    def states(self) -> dict[str, VariantState]:
        """What every variant in the store is doing, by name."""
        return {name: self._state(name) for name in sorted({*self.builds, *self.broken})}

    @property
    def served(self) -> bool:
        """Whether it is there for requests: not unloaded by the operator, nor removed."""
        return self.rollout.serves and bool(self.builds)

    @property
    def held(self) -> bool:
        """Whether it takes memory, or is about to."""
        return bool(self.loaded or self.leaving)

    @property
    def settled(self) -> bool:
        """Whether it is as ready as it was when the server started, or will ever be."""
        on_menu = [self.builds[each.name] for each in self.menu.offers]
        if any(build.stage in ("waiting", "loading") and not _idle(build) for build in on_menu):
            return False
        return bool(self.ready) or all(build.late for build in on_menu)

    def is_ready(self, variant: str) -> bool:
        """Whether `variant` is loaded, warm and healthy."""
        return variant in self.ready

    def resolve(self, variant: str) -> VariantCard:
        """The card of `variant`, which may be an alias.

        Raises:
            UnknownVariant: there is none, or the operator took it off the menu.
            NotReady: it is broken.
        """
        return self.builds[self.menu.resolve(variant).name].entry.card

    def build(self, offer: Offer) -> Loaded:
        """The build that `offer` speaks for, loaded.

        Raises:
            EngineError: it is not in memory any more.
        """
        loaded = self.loaded.get(offer.name)
        if loaded is not None and loaded.build == offer.build:
            return loaded
        for build in self.leaving:
            if build.loaded is not None and build.entry.digest == offer.build:
                return build.loaded
        raise EngineError("the build that was promised is not in memory any more")

    # Loading: on any thread.

    def load(
        self,
        variant: str,
        hosts: Sequence[Host],
        *,
        threads: int,
        max_batch: int,
        trust: bool,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """Load and warm `variant` on every lane; then it is ready, or failed with a reason.

        Args:
            pause: called between two steps of it.
        """
        build = self.builds[variant]
        loaded = self.prepare(
            build, hosts, threads=threads, max_batch=max_batch, trust=trust, pause=pause
        )
        if loaded is not None:
            self.adopt(variant, loaded)

    def adopt(self, variant: str, loaded: Loaded) -> None:
        """`loaded` is the current build of `variant`, warm: it serves."""
        with self._settling:
            build = self.builds[variant]
            self.loaded[variant] = loaded
            build.move("warmed")
            build.resting = False
            self.publish()

    def prepare(
        self,
        build: Build,
        hosts: Sequence[Host],
        *,
        threads: int,
        max_batch: int,
        trust: bool,
        pause: Callable[[], None] = lambda: None,
    ) -> Loaded | None:
        """The programs of `build`, loaded and warm; None where it has failed, with a reason.

        It is "loading" afterwards where it has not failed.
        """
        entry = build.entry
        build.move("load")
        began_s = time.monotonic()
        try:
            programs = load_programs(
                hosts, entry, threads=threads, max_batch=max_batch, trust=trust, pause=pause
            )
            if self.door is not None:
                self.door.open(entry.folder)
        except Exception as error:
            # Whatever an engine raises while it starts is this variant's failure, not the
            # server's: the others serve without it.
            build.why = str(error) if isinstance(error, EngineError) else repr(error)
            build.doubtful = isinstance(error, FilesChanged)
            build.move("failed")
            _LOG.error("%s/%s will not serve: %s", self.name, entry.card.variant, build.why)
            return None
        build.took_s = time.monotonic() - began_s
        return Loaded(entry.card, programs, entry.digest)

    # Memory: what the limit does with current builds.

    def rest(self, variant: str) -> None:
        """Keep `variant`, which is not loaded, out of memory for now."""
        self.builds[variant].resting = True

    def evict(self, variant: str) -> None:
        """Route nothing to `variant` any more; what is queued for it may still run."""
        self._move(variant, "leave")

    def retire(self, variant: str) -> None:
        """Let no lane start a batch of `variant`, which was evicted, any more."""
        self._move(variant, "retire")

    def reinstate(self, variant: str) -> None:
        """Take `evict` and `retire` back; `free` has not been called."""
        self._move(variant, "stay")

    def free(self, variant: str) -> None:
        """Close the programs of `variant`, which nothing uses any more."""
        build = self.builds[variant]
        with self._settling:
            if build.stage == "leaving":
                build.move("retire")
            build.move("free")
            build.resting = True
            loaded = self.loaded.pop(variant)
            self.publish()
        loaded.close()

    # What `gateway.lifecycle.change` is made of.

    def remake(self) -> None:
        """Make the menu anew, of what there is and what the operator wants."""
        absent = self.rollout.absent()
        offers = [build.offer for name, build in self.builds.items() if name not in absent]
        canaries = self.rollout.canaries
        self.menu = assemble(
            self.name,
            self.reference,
            offers,
            self.not_worse,
            withheld=frozenset(canaries),
            aliases=dict(self.rollout.aliases),
            absent=absent,
            broken=dict(self.broken),
        )
        pinned = self.rollout.pinned in self.menu.by_name
        self.steered = pinned or any(name in self.menu.by_name for name in canaries)
        self.publish()

    def send_off(self, variant: str, build: Build) -> None:
        """`build` is nobody's current one any more; it leaves when nothing needs it."""
        if build.stage in lifecycle.HELD:
            build.loaded = self.loaded.pop(variant)
            if build.stage == "ready":
                build.move("leave")
            self.leaving.append(build)

    def _move(self, variant: str, event: Event) -> None:
        with self._settling:
            build = self.builds[variant]
            build.move(event)
            build.resting = event != "stay"
            self.publish()

    def publish(self) -> None:
        """Make it known what is ready and runnable, by replacing both sets."""
        stages = {name: build.stage for name, build in self.builds.items()}
        on_menu = self.menu.by_name
        self.ready = frozenset(
            [n for n, stage in stages.items() if stage in lifecycle.ROUTED and n in on_menu]
        )
        leaving = [b.offer.name for b in self.leaving if b.stage in lifecycle.RUN]
        running = [name for name, stage in stages.items() if stage in lifecycle.RUN]
        self.runnable = frozenset([*running, *leaving])

    def _unnamed(self, variant: str) -> str:
        """Why `variant` cannot be named; empty where it can."""
        named = self.rollout.aliases.get(variant)
        return "" if named is None else f"it cannot be named: the alias {variant} is {named}"

    def _state(self, variant: str) -> VariantState:
        build = self.builds.get(variant)
        if variant in self.rollout.disabled:
            return VariantState(variant, "disabled", "disabled by the operator")
        if build is None:
            return VariantState(variant, "failed", self.broken[variant])
        if variant in self.rollout.shadows:
            return VariantState(variant, "shadow", build.why)
        if not self.rollout.serves:
            return VariantState(variant, "disabled", "its model was unloaded by the operator")
        if build.stage in ("ready", "failed"):
            return VariantState(variant, build.stage, build.why or self._unnamed(variant))
        if build.resting or build.stage in lifecycle.HELD:
            return VariantState(variant, "evicted", _EVICTED)
        return VariantState(variant, "loading")


def _idle(build: Build) -> bool:
    """Whether nobody waits for it to be loaded."""
    return build.resting or build.late
