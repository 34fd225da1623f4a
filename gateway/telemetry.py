"""Telemetry: what was learnt from finished batches and answers, for the next snapshot.

Windows drop their oldest samples, by count and by age: after a quiet while the card is believed
again, so a slow minute does not keep a variant out for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median

# Enough for a stable median, few enough to follow a change within a second of load.
_WINDOW = 32
_FEWEST = 5
_OLDEST_S = 30.0
_OVERHEAD_WINDOW = 128
# Until answers were seen: parsing, a thread hop and answering on a 2020s server core.
_OVERHEAD_START_MS = 0.5


class Telemetry:
    """Not thread-safe: one thread, the event loop's, observes. The mappings it hands out are
    replaced, never changed, so other threads may read them."""

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str], deque[tuple[float, float]]] = {}
        self._slowdown: dict[str, Mapping[str, float]] = {}
        self._fresh_until_s: dict[str, float] = {}
        self._overheads: deque[float] = deque(maxlen=_OVERHEAD_WINDOW)
        self.overhead_ms = _OVERHEAD_START_MS

    def batch(
        self, model: str, variant: str, expected_ms: float, actual_ms: float, now_s: float
    ) -> None:
        """A batch that succeeded took `actual_ms`; its card's median says `expected_ms`."""
        window = self._ratios.setdefault((model, variant), deque(maxlen=_WINDOW))
        window.append((now_s, actual_ms / expected_ms))
        while now_s - window[0][0] > _OLDEST_S:
            window.popleft()
        if len(window) >= _FEWEST:
            factor = median([ratio for _, ratio in window])
            factors = {**self._slowdown.get(model, {}), variant: factor}
            # First, because another thread may read between the two.
            self._fresh_until_s[model] = _OLDEST_S + min(
                self._ratios[model, name][-1][0] for name in factors
            )
            self._slowdown[model] = factors

    def slowdown(self, model: str, now_s: float) -> Mapping[str, float]:
        """By variant, how many times longer than its card's median its batches took lately."""
        factors = self._slowdown.get(model, {})
        if not factors or now_s <= self._fresh_until_s[model]:
            return factors
        return {
            variant: factor
            for variant, factor in factors.items()
            if now_s - self._ratios[model, variant][-1][0] <= _OLDEST_S
        }

    def overhead(self, ms: float) -> None:
        """An answer took `ms` outside queue and inference."""
        self._overheads.append(ms)
        # Sorting at each answer would cost more than the answer's own overhead.
        if len(self._overheads) == _OVERHEAD_WINDOW:
            ordered = sorted(self._overheads)
            self.overhead_ms = ordered[int(0.95 * (_OVERHEAD_WINDOW - 1))]
            self._overheads.clear()
