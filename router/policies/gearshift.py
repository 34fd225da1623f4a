"""The default policy: everything is decided when a lane comes free, at the price of lane time."""

from __future__ import annotations

from collections.abc import Sequence

from router.choices import Choices
from router.dispatch import Assignment, Moment, dispatch
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting


class Gearshift:
    """Everything is left to dispatch."""

    late = True
    admits_all = False

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:  # noqa: ARG002
        """The best choice: it is decided anew when a lane comes free."""
        return choices.offers[0]

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """See `router.dispatch.dispatch`."""
        return dispatch(queue, moment)


POLICY = Gearshift()
