"""Builds: what lay in a variant's folder when its digests were checked, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.execution.lease import Loaded
from gateway.lifecycle.catalog import Entry
from router import lifecycle
from router.lifecycle import Event, State
from router.menu import Offer, Percentile, offer


@dataclass(frozen=True, slots=True)
class Terms:
    """What an offer says beside its card: see `router.menu.menu`."""

    percentile: Percentile
    usd_per_lane_hour: float
    max_batch: int

    def offer(self, entry: Entry) -> Offer:
        """What `entry` offers on these terms."""
        return offer(
            entry.card,
            percentile=self.percentile,
            usd_per_lane_hour=self.usd_per_lane_hour,
            max_batch=self.max_batch,
            build=entry.digest,
        )


class Build:
    """One build of a variant, and what has become of it.

    Attributes:
        resting: whether the memory limit keeps it out, as far as anybody knows.
        late: whether it was found while the server served, which is as ready as it was.
        doubtful: whether it failed because its files are not what they were.
        took_s: how long it took to load and warm it the last time.
        loaded: its programs, once it is leaving; those of current builds are the model's.
    """

    def __init__(self, entry: Entry, offer: Offer, *, late: bool = False) -> None:
        self.entry = entry
        self.offer = offer
        self.stage: State = "waiting"
        self.why = ""
        self.resting = False
        self.late = late
        self.doubtful = False
        self.took_s = 0.0
        self.loaded: Loaded | None = None

    def move(self, event: Event) -> None:
        """Let `event` happen to it; raises `router.lifecycle.WrongState` where it cannot."""
        self.stage = lifecycle.after(self.stage, event)
