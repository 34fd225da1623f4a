"""The loader: takes one build into memory, as gently as can be, and sees one off.

It decides nothing: `gateway.lifecycle.residency` says what comes and what goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from gateway import memory
from gateway.execution.lease import Loaded
from gateway.hosts import Host
from gateway.lifecycle import change, gently
from gateway.lifecycle.builds import Build
from gateway.lifecycle.fleet import Fleet, ServedModel
from gateway.metrics import Metrics
from gateway.settings import Settings
from router.lifecycle import next_action
from router.residency import Key

POLL_S = 0.01


class Loader:
    """Everything runs on the event loop's thread but the loading itself.

    Args:
        hosts: where to load, one for each lane.
        change: runs what it is given while no lane looks at the fleet.
        holds: whether a request that is queued or running may be answered by the build of that
            digest.
        freed: is called when a build has left memory.

    Attributes:
        longest_s: how long the longest load took.
        stopping: whether nothing is to be changed any more.
    """

    def __init__(
        self,
        fleet: Fleet,
        metrics: Metrics,
        hosts: Sequence[Host],
        change: Callable[[Callable[[], None]], None],
        holds: Callable[[str], bool],
        freed: Callable[[], None],
    ) -> None:
        self.change = change
        self.longest_s = 0.0
        self.stopping = False
        self._fleet = fleet
        self._metrics = metrics
        self._hosts = hosts
        self._holds = holds
        self._freed = freed
        self._took_s: dict[Key, float] = {}
        self._drains: dict[Build, asyncio.Task[None]] = {}

    def load_s(self, key: Key) -> float:
        """How long it takes to load that variant of that model, as far as anybody knows."""
        return self._took_s.get(key, self.longest_s)

    async def prepared(self, model: ServedModel, build: Build, settings: Settings) -> Loaded | None:
        """The programs of `build`, warm on every lane; None where it has failed, with a reason."""
        threads = settings.threads_per_lane
        # Threads that an engine starts for a program are as nice as the one that loads it, and
        # would be when they serve.
        run = gently.run if threads == 1 else gently.apart
        loaded = await run(
            model.prepare,
            build,
            self._hosts,
            threads=threads,
            max_batch=settings.max_batch,
            trust=settings.trust_store,
            pause=gently.pause,
        )
        await asyncio.to_thread(memory.trim)
        self.learn(model, build)
        if loaded is None:
            self._metrics.load_failed(model.name, build.offer.name)
        return loaded

    def learn(self, model: ServedModel, build: Build) -> None:
        """How long it took to load `build`, for what is promised of the next load."""
        if build.took_s:
            self.longest_s = max(self.longest_s, build.took_s)
            self._took_s[model.name, build.offer.name] = build.took_s

    def see_off(self) -> None:
        """Drain and free every build that is leaving, each as soon as nothing needs it."""
        for model in self._fleet.everything().values():
            for build in model.leaving:
                if build not in self._drains:
                    self._drains[build] = asyncio.create_task(self._drain(model, build))

    async def seen_off(self) -> None:
        """Return when all that is leaving now is out of memory."""
        if self._drains:
            await asyncio.wait(list(self._drains.values()))

    async def _drain(self, model: ServedModel, build: Build) -> None:
        """See a build off that nobody's new requests go to; however long it takes."""
        while not self.stopping:
            action = next_action(build.stage, "drop", self._holds(build.entry.digest))
            if action == "retire":
                self.change(partial(change.unneeded, model, build))
                continue
            if action == "free":
                assert build.loaded is not None
                if await asyncio.to_thread(build.loaded.close):
                    build.move("free")
                    self.change(partial(change.freed, model, build))
                    self._metrics.freed(model.name, build.offer.name)
                    break
            await asyncio.sleep(POLL_S)
        del self._drains[build]
        await asyncio.to_thread(memory.trim)
        if not (model.builds or model.broken or model.held):
            self.change(partial(self._fleet.remove, model))
        self._freed()
