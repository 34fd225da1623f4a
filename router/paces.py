"""Paces: every model's pace, worked out again only when something was learnt or time has passed."""

from __future__ import annotations

import math

from router.available import Available
from router.menu import Menu
from router.pace import Pace
from router.telemetry import Telemetry

# What was learnt is forgotten with age alone, too.
_OLDEST_S = 1.0
# Slowdowns that differ by less are one: what follows from them is worked out once.
_STEPS_PER_E = 25


class Paces:
    """How fast each model's variants run now, of those that a lane may run."""

    def __init__(self, available: Available, telemetry: Telemetry) -> None:
        self._available = available
        self._telemetry = telemetry
        self._known: dict[str, tuple[object, Pace]] = {}
        self._seen: dict[str, tuple[int, frozenset[str], Menu, float]] = {}

    def of(self, model: str, now_s: float) -> Pace:
        """That of one model; the same object while nothing changes that follows from it.

        Raises:
            KeyError: there is no such model.
        """
        menu = self._available.models[model].menu
        runnable = self._available.runnable(model, now_s)
        learnt = self._telemetry.batches
        seen = self._seen.get(model)
        if (
            seen is not None
            and seen[0] == learnt
            and seen[1] is runnable
            and seen[2] is menu
            and now_s - seen[3] < _OLDEST_S
        ):
            return self._known[model][1]
        self._seen[model] = learnt, runnable, menu, now_s
        factors = self._telemetry.slowdown(model, menu.by_name, now_s)
        steps = [round(math.log(factor) * _STEPS_PER_E) for factor in factors.values()]
        tail = round(self._telemetry.tail(now_s), 2)
        key = runnable, menu, steps, tail
        known = self._known.get(model)
        if known is None or known[0] != key:
            slowdown = {
                name: math.exp(step / _STEPS_PER_E)
                for name, step in zip(factors, steps, strict=True)
                if step
            }
            known = self._known[model] = key, Pace(menu, slowdown, runnable, tail)
        return known[1]

    def all(self, now_s: float) -> dict[str, Pace]:
        """Those of all models, by name."""
        return {model: self.of(model, now_s) for model in self._available.models}

    def forget(self, model: str) -> None:
        """`model` has gone."""
        self._known.pop(model, None)
        self._seen.pop(model, None)
