"""Available: which variants a request may be routed to, and which a lane may run, at this moment.

Both are what is loaded less what failed lately, see `router.breaker`. Nothing is worked out while
no breaker is anything but closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from router.breaker import Breakers
from router.menu import Menu
from router.queue import Waiting


class Served(Protocol):
    """A model, as the scheduler sees it."""

    @property
    def menu(self) -> Menu:
        """Its variants."""

    @property
    def ready(self) -> frozenset[str]:
        """Those that a request may be routed to: loaded, warm and healthy."""

    @property
    def runnable(self) -> frozenset[str]:
        """Those that a lane may run: the ready ones, and those that are leaving and still there."""


class Available:
    """The variants of every model, less those that their breakers keep out."""

    def __init__(self, models: Mapping[str, Served], breakers: Breakers) -> None:
        self.models = models
        self._breakers = breakers

    def ready(self, model: str, now_s: float) -> frozenset[str]:
        """Those that a request may be routed to.

        Raises:
            KeyError: there is no such model.
        """
        ready = self.models[model].ready
        return ready - self._breakers.shut_out(model, now_s) if self._breakers else ready

    def runnable(self, model: str, now_s: float) -> frozenset[str]:
        """Those that a lane that comes free may run; the very set that is loaded while all may.

        Raises:
            KeyError: there is no such model.
        """
        runnable = self.models[model].runnable
        if not self._breakers:
            return runnable
        shut_out = self._breakers.shut_out(model, now_s) | self._breakers.probed(model, now_s)
        return runnable - shut_out if shut_out else runnable

    def not_held(self, queue: Sequence[Waiting], now_s: float) -> Sequence[Waiting]:
        """`queue` less those that nothing may answer before a batch on another lane is back.

        That batch tells whether the variant they need works again, so they do not expire yet.
        """
        probed = {model: self._breakers.probed(model, now_s) for model in self.models}
        if not any(probed.values()):
            return queue
        runnable = {model: self.runnable(model, now_s) for model in self.models}

        def held(waiting: Waiting) -> bool:
            names = {offer.name for offer in waiting.choices.offers}
            model = waiting.choices.model
            return names.isdisjoint(runnable[model]) and not names.isdisjoint(probed[model])

        return [waiting for waiting in queue if not held(waiting)]
