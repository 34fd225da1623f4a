"""Requests go to their choices in turn."""

from __future__ import annotations

from collections.abc import Sequence

from router.batching import batch, ready
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting


class RoundRobin:
    """The next that is allowed."""

    late = False
    admits_all = True

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """The choice whose turn it is, by the request's number."""
        offers = ready(choices, scene.pace)
        return offers[scene.ticket % len(offers)] if offers else None

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """See `router.batching.batch`."""
        return batch(queue, moment)


POLICY = RoundRobin()
