"""Usage: the lane time that each model had lately, so that shares are made even over a while."""

from __future__ import annotations

import math

# Over how long models' shares are made even.
_MEMORY_S = 1.0


class Usage:
    """Lane time by model, in ms; what was had long ago is forgotten."""

    def __init__(self) -> None:
        self.lately_ms: dict[str, float] = {}
        self._at_s = 0.0

    def add(self, model: str, ms: float, now_s: float) -> None:
        """`model` gets `ms` of a lane from now on."""
        faded = math.exp((self._at_s - now_s) / _MEMORY_S)
        self._at_s = now_s
        self.lately_ms = {name: had_ms * faded for name, had_ms in self.lately_ms.items()}
        self.lately_ms[model] = self.lately_ms.get(model, 0.0) + ms

    def forget(self, model: str) -> None:
        """`model` has gone."""
        self.lately_ms.pop(model, None)
