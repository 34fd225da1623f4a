"""Every request goes to its fastest choice, whatever the load: the most throughput there is."""

from __future__ import annotations

from collections.abc import Sequence

from router.batching import batch, fastest, ready
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting


class StaticFastest:
    """The fastest that is allowed."""

    late = False
    admits_all = True

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """The choice that is ready and takes least for such a request alone."""
        return fastest(ready(choices, scene.pace), scene.pace, scene.rows)

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """See `router.batching.batch`."""
        return batch(queue, moment)


POLICY = StaticFastest()
