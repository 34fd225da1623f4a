"""Demand: how often each variant was wanted lately, loaded or not."""

from __future__ import annotations

import math

from router.residency import Key


class Demand:
    """How often each variant was wanted lately. An old request counts less, by its age."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._counts: dict[Key, tuple[float, float]] = {}

    def count(self, key: Key, now_s: float, weight: float = 1.0) -> None:
        """One request wanted the variant `key`."""
        self._counts[key] = self._now(key, now_s) + weight, now_s

    def rate(self, key: Key, now_s: float) -> float:
        """Requests a second that wanted the variant `key`, each by its weight."""
        return self._now(key, now_s) * math.log(2) / self._half_life_s

    def _now(self, key: Key, now_s: float) -> float:
        count, at_s = self._counts.get(key, (0.0, now_s))
        return count * math.exp2((at_s - now_s) / self._half_life_s)
