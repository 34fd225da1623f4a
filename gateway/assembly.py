"""What serves, as one: its parts joined, started, changed by new settings, asked for their health,
stopped. What happens to a request in there is `gateway/service.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from gateway import hosts
from gateway.admission import Admission
from gateway.answers import Answers
from gateway.execution.keeper import Lane
from gateway.execution.lanes import Lanes
from gateway.journal import Journal
from gateway.lifecycle import catalog, signature
from gateway.lifecycle.directives import Directives
from gateway.lifecycle.fleet import Fleet, ServedModel
from gateway.lifecycle.operator import Operator
from gateway.lifecycle.reload import Reloaded, merged
from gateway.lifecycle.residency import Residency
from gateway.lifecycle.shadow import Shadows
from gateway.lifecycle.watch import Watch
from gateway.metrics import Shown
from gateway.processes.ending import Ending
from gateway.settings import Settings, SettingsError
from gateway.store import source
from gateway.trust.tls import Tls
from router import policies
from router.breaker import Breaker, Breakers, Terms
from router.errors import GearshiftError, NotReady, UnknownVariant
from router.route import Policy
from router.scheduler import Scheduler
from router.telemetry import Telemetry

_LOG = logging.getLogger(__name__)

# How long an idle lane may take to end. One that runs a batch still has been waited for already.
_ENDING_S = 1.0


class Assembly:
    """Every part of a gateway, on one event loop.

    Args:
        read: reads the settings again, from where they came.
        tls: what the listeners speak, which is read again with the settings.

    Raises:
        catalog.StoreUnusable: the store is missing, or nothing in it can be served.
        SettingsError: the memory limit does not hold one variant of every model, or a weight is
            for none of them.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        read: Callable[[], Settings] | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._read = read or (lambda: settings)
        self._journal = journal
        self._metrics = metrics = journal.metrics
        check = signature.checker(settings.verify_signatures)
        self.source = source.of(settings, check)
        if self.source is not None:
            self.source.first()
        watch = Watch(settings.store, check, self.source)
        self.catalog = catalog.usable(settings.store, check)
        directives = Directives(settings.state_folder, settings.store)
        self.fleet = Fleet.of(
            self.catalog,
            percentile=settings.latency_percentile,
            usd_per_lane_hour=settings.usd_per_lane_hour,
            max_batch=settings.max_batch,
            rollout=directives.of,
        )
        _weights_are_known(settings, self.fleet)
        self._policy = Policy(
            accuracy_margin=settings.accuracy_margin,
            default=settings.default_constraints,
        )
        self._telemetry = Telemetry(settings.latency_percentile)
        self._residency = Residency(self.fleet, settings, self._policy, metrics)
        self._admission = Admission(self.fleet, self._residency, settings, metrics)
        self._shadows = Shadows(
            self.fleet, settings, metrics, lambda: self._lanes.idle, self._residency.room
        )
        self.operator = Operator(
            watch, self.fleet, self._residency, directives, metrics, self._changed
        )
        cache_bytes = int(settings.response_cache_mb * 1e6)
        self._answers = Answers(cache_bytes) if cache_bytes else None
        metrics.govern(settings.default_constraints, settings.latency_percentile)
        metrics.watch_cache(lambda: self._answers.bytes if self._answers else 0)
        self._started = False
        self._leaving = False
        self.closing = asyncio.Event()
        """Set when the ports close: nothing new comes."""

    async def start(self) -> None:
        """Start the lanes, then load and warm the variants; returns when all are settled."""
        settings = self._settings
        scheduler = Scheduler(
            self.fleet.everything(),
            self._telemetry,
            policies.get(settings.policy),
            self._policy,
            lanes=settings.lanes,
            max_batch=settings.max_batch,
            weights=settings.model_weights,
            breakers=Breakers(
                Terms(failures=settings.breaker_failures, first_s=settings.breaker_seconds)
            ),
        )
        kind = settings.lane_kind
        self._hosts = [hosts.open_one(kind, lane) for lane in range(settings.lanes)]
        self._lanes = Lanes(
            self.fleet,
            scheduler,
            self._hosts,
            self._metrics,
            max_batch=settings.max_batch,
            batch_timeout_s=settings.batch_timeout_seconds,
        )
        self._admission.open(self._lanes)
        self._metrics.watch(
            queued=self.queued_by_model,
            ages_s=self.queue_ages_s,
            busy_lanes=lambda: self._lanes.busy,
            lost_lanes=lambda: self._lanes.keeper.lost,
            lanes=settings.lanes,
            loaded_bytes=lambda: self._residency.loaded_bytes + self._shadows.loaded_bytes(),
        )
        self._metrics.watch_variants(self._shown)
        for model in self.fleet.everything().values():
            self._changed(model)
        self._started = True
        await self._residency.start(
            self._lanes.in_use,
            self._hosts,
            change=self._lanes.change,
            holds=self._lanes.holds,
            replaced=self._lanes.replaced,
        )
        if not self.stopping:
            self.operator.start(self._lanes.change, settings.watch_seconds)
            if self.source is not None:
                self.source.start()

    def _changed(self, model: ServedModel) -> None:
        """Show `model`, of which other variants are there now."""
        self._metrics.watch_model(model.name, model.states)
        self._shadows.tidy()

    # For the metrics, on their own thread.

    def _shown(self) -> list[Shown]:
        """Every variant of the store, now; without those of models that the operator unloaded."""
        found = [
            Shown(name, variant, None, False, "closed")
            for name, whys in list(self.fleet.broken.items())
            for variant in sorted(whys)
        ]
        for name, model in self.fleet.everything().items():
            if not model.rollout.serves:
                continue
            builds = dict(model.builds)
            for variant in sorted({*builds, *model.broken}):
                build = builds.get(variant)
                known = None
                if build is not None:
                    known = build.entry.card, build.offer, build.entry.digest
                state = self.breaker(name, variant).state
                found.append(Shown(name, variant, known, self.healthy(name, variant), state))
        return found

    async def stop(self, starting: asyncio.Task[None], ending: Ending) -> None:
        """Refuse new requests, let the queued ones finish.

        Args:
            starting: runs `start`, and may not have done so to its end: no variant more is begun.
            ending: how long all of that may take.
        """
        self._admission.stopping = self.fleet.closing = True
        await asyncio.wait({starting}, timeout=ending.left_s())
        loading = not starting.done()
        starting.cancel()
        if not self._started:
            return
        self.operator.stop()
        if self.source is not None:
            self.source.stop()
        await self._shadows.stop()
        await self._residency.stop(ending.left_s())
        while not self._lanes.idle and ending.left_s():
            await asyncio.sleep(0.01)
        self._lanes.refuse_queued()
        if loading:
            _LOG.error("a variant is still being loaded; the process ends without it")
        elif await asyncio.to_thread(self._lanes.join, min(_ENDING_S, ending.step_s())):
            self.fleet.close()
            for host in self._hosts:
                host.close()
        else:
            _LOG.error("a lane still runs its batch; the process ends without it")

    def leave(self) -> None:
        """Be ready no more, and serve on."""
        self._leaving = True

    def reload(self) -> Reloaded:
        """Read settings and certificate again and let them hold, as far as that needs no restart.

        Raises:
            SettingsError: they make no sense, by themselves or for what is served, or the
                certificate is not usable; nothing has changed then.
        """
        settings, told = merged(self._settings, self._read())
        _weights_are_known(settings, self.fleet)
        if self._tls is not None:
            self._tls.check()
        policy = Policy(settings.accuracy_margin, settings.default_constraints)
        self._residency.govern(settings, policy)
        self._settings, self._policy = settings, policy
        self._metrics.govern(settings.default_constraints, settings.latency_percentile)
        self._admission.govern(settings)
        if "usd_per_lane_hour" in told.changed:
            terms = replace(self.fleet.terms, usd_per_lane_hour=settings.usd_per_lane_hour)
            self._lanes.change(partial(self.fleet.offer_anew, terms))
        self._lanes.govern(policy, settings.model_weights)
        if self._tls is not None:
            self._tls.reload()
        return told._replace(certificate=self._tls is not None)

    @property
    def settings(self) -> Settings:
        """Those that hold now."""
        return self._settings

    @property
    def left(self) -> int:
        """A number that grows when a refusal may be out of date: see `Admission.left`."""
        return self._admission.left

    @property
    def stopping(self) -> bool:
        """Whether nobody is let in any more."""
        return self._admission.stopping

    def breaker(self, model: str, variant: str) -> Breaker:
        """Whether requests are kept from a variant that failed, and until when."""
        return self._lanes.breaker(model, variant)

    def healthy(self, model: str, variant: str) -> bool:
        """Whether a variant is loaded and warm, and requests are not kept from it."""
        served = self.fleet.everything().get(model)
        ready = served is not None and served.is_ready(variant)
        return ready and self.breaker(model, variant).state != "open"

    def check_healthy(self, model: str, variant: str) -> None:
        """Raises where requests are kept from a variant that is ready.

        Raises:
            NotReady: it failed, and is left alone for a while.
        """
        breaker = self.breaker(model, variant)
        if breaker.state == "open":
            left_s = max(0.0, breaker.until_s - time.monotonic())
            raise NotReady(
                f"{model}/{variant} failed too often and is left alone for {left_s:.3g} s", left_s
            )

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes, to be looked at alone; none before the start."""
        return self._lanes.keeper.lanes if self._started else ()

    def queued_by_model(self) -> Counter[str]:
        """Requests that wait for a lane, or for a variant that is being loaded; on any thread."""
        if not self._started:
            return Counter()
        waiting = Counter([request.model for request in self._lanes.waiting()])
        return waiting + self._residency.waiting_for

    def queue_ages_s(self) -> dict[str, float]:
        """Age of the oldest request that waits for a lane, by model; on any thread."""
        ages_s: dict[str, float] = {}
        now_s = time.monotonic()
        for request in self._lanes.waiting() if self._started else ():
            age_s = now_s - request.received_s
            ages_s[request.model] = max(age_s, ages_s.get(request.model, 0.0))
        return ages_s

    def knows(self, model: str, variant: str | None = None) -> bool:
        """Whether the store has such a model, and of it such a variant or alias."""
        served = self.fleet.everything().get(model)
        if served is None or variant is None:
            return served is not None
        try:
            served.resolve(variant)
        except GearshiftError as error:
            return not isinstance(error, UnknownVariant)
        return True

    def lanes_report(self) -> dict[str, object]:
        """What the lanes do now, and which variants are left alone after they failed."""
        return self._lanes.keeper.report() if self._started else {}

    @property
    def leaving(self) -> bool:
        """Whether requests had better be sent elsewhere."""
        return self._leaving or self.stopping

    @property
    def live(self) -> bool:
        """Whether the process can serve, or will; where not, only another one can."""
        return not self._started or self._lanes.keeper.alive

    @property
    def ready(self) -> bool:
        """Whether every variant is settled, every model has one, and it is not stopping."""
        return self.fleet.ready and not self.leaving


def _weights_are_known(settings: Settings, fleet: Fleet) -> None:
    unknown = sorted(settings.model_weights.keys() - fleet.everything().keys())
    if unknown:
        known = ", ".join(fleet.names())
        raise SettingsError(f"model_weights: expected some of {known}, got {unknown[0]!r}")
