"""Every request goes to its most accurate choice, whatever the load: no adaptation at all."""

from __future__ import annotations

from collections.abc import Sequence

from router.batching import batch, most_accurate, ready
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting


class StaticMostAccurate:
    """The most accurate that is allowed."""

    late = False
    admits_all = True

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """The most accurate choice that is ready."""
        return most_accurate(ready(choices, scene.pace))

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """See `router.batching.batch`."""
        return batch(queue, moment)


POLICY = StaticMostAccurate()
