"""One named variant for everything, as `static:int8`: what a server without choice does.

A request that may not be answered by that variant is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.batching import batch, ready
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting


class Static:
    """Always `variant`."""

    late = False
    admits_all = True

    def __init__(self, variant: str) -> None:
        self.variant = variant

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """The variant, where it is among the choices and ready."""
        offers = ready(choices, scene.pace)
        return next((offer for offer in offers if offer.name == self.variant), None)

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """See `router.batching.batch`."""
        return batch(queue, moment)


def parametrised(argument: str) -> Static:
    """The policy that runs the variant `argument`."""
    return Static(argument)
