"""The memory limit: what it leaves for variants, and what `router.residency` plans within it.

A variant counts what it takes by its card, once for each lane. The process itself, the engines and
the requests come on top, and so does what an engine keeps for all programs together: eight variants
of the digits network on two lanes grew a process by 570 MB, where such cards say 316 MB. Without a
limit everything is loaded and nothing is counted.

Shadows, which have one program each wherever it lives, come first: what they take is kept free.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from gateway.lifecycle.demand import Demand
from gateway.lifecycle.fleet import Fleet
from gateway.lifecycle.room import check_shadow, shadows_bytes
from gateway.settings import Settings, SettingsError
from router.residency import Candidate, DoesNotFit, Key, Plan, residency
from router.rollout import Rollout


class Limit:
    """What the loaded variants of a fleet may take in this process.

    Attributes:
        settings: those that hold.
        bytes: the limit; None where there is none.
    """

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self._fleet = fleet
        self.obey(settings)

    def obey(self, settings: Settings) -> None:
        """Keep to the limit that these settings hold."""
        self.settings = settings
        limit_mb = settings.memory_limit_mb
        # Each worker keeps its share.
        self.bytes = None if limit_mb is None else round(limit_mb * 1e6 / settings.workers)

    @property
    def loaded_bytes(self) -> int:
        """What takes memory now, by the cards, one that is leaving included."""
        lanes = self.settings.lanes
        return sum(
            loaded.card.resident_bytes * lanes
            for model in self._fleet.everything().values()
            for loaded in (*model.loaded.values(), *[b.loaded for b in model.leaving if b.loaded])
        )

    @property
    def room(self) -> float:
        """What is left for variants that are to be loaded now."""
        left = self._left
        return math.inf if left is None else left - self.loaded_bytes

    @property
    def _left(self) -> int | None:
        """The limit for what is not a shadow."""
        return None if self.bytes is None else self.bytes - shadows_bytes(self._fleet)

    def has_room(self, shadows_bytes: int) -> bool:
        """Whether there is room for shadows that take so many bytes, beside what is loaded."""
        return self.bytes is None or self.loaded_bytes + shadows_bytes <= self.bytes

    def check_shadow(self, model: str, variant: str, rollout: Rollout) -> None:
        """As `room.check_shadow`, under this limit."""
        if self.bytes is not None:
            check_shadow(self._fleet, self.settings, self.bytes, model, variant, rollout)

    def bytes_of(self, key: Key) -> int:
        """What that variant of that model takes, loaded or not."""
        name, variant = key
        card = self._fleet.model(name).builds[variant].entry.card
        return card.resident_bytes * self.settings.lanes

    def plan(self, demand: Demand, since_s: Mapping[Key, float], least_s: float) -> Plan:
        """What should be loaded and freed now.

        Args:
            since_s: when what is loaded came into memory.
            least_s: how long it stays at least.

        Raises:
            DoesNotFit: the limit does not hold one variant of every model.
        """
        now_s = time.monotonic()
        return residency(
            [
                Candidate(
                    model=model.name,
                    variant=offer.name,
                    bytes=self.bytes_of((model.name, offer.name)),
                    demand=demand.rate((model.name, offer.name), now_s),
                    # The menu's order is by accuracy, which a request that demands nothing wants;
                    # the reference meets every floor that is relative to it.
                    rank=0 if offer.name == model.reference else place,
                    loaded_s=since_s.get((model.name, offer.name))
                    if offer.name in model.loaded
                    else None,
                )
                for model in self._fleet.models()
                for place, offer in enumerate(model.menu.offers, 1)
                if model.builds[offer.name].stage != "failed"
            ],
            self._left,
            now_s,
            least_s=least_s,
        )

    def too_low(self, error: DoesNotFit) -> SettingsError:
        """What the operator is told of a limit that does not hold one variant of every model."""
        workers = self.settings.workers
        shadows = shadows_bytes(self._fleet)
        least_mb = math.ceil((error.least_bytes + shadows) * workers / 1e3) / 1e3
        limit_mb = (error.limit_bytes + shadows) * workers / 1e6
        beside = " beside the shadows" if shadows else ""
        return SettingsError(
            f"memory_limit_mb: expected at least {least_mb:.10g}, which one variant of every "
            f"model takes on {self.settings.lanes * workers} lanes{beside}, "
            f"got {limit_mb:.10g}"
        )
