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
_OVERHEAD_OLDEST_S = 2.0
# Until answers were seen: parsing, a thread hop and answering on a 2020s server core.
OVERHEAD_START_MS = 0.5


class Telemetry:
    """Not thread-safe: one thread, the event loop's, observes. The mappings it hands out are
    replaced, never changed, so other threads may read them."""

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str], deque[tuple[float, float]]] = {}
        self._slowdown: dict[str, Mapping[str, float]] = {}
        self._fresh_until_s: dict[str, float] = {}
        self._overheads: list[float] = []
        self._overhead_ms = OVERHEAD_START_MS
        self._overhead_until_s = 0.0

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

    def overhead(self, ms: float, now_s: float) -> None:
        """An answer took `ms` outside queue and inference."""
        self._overheads.append(ms)
        # Sorting at each answer would cost more than the answer's own overhead.
        if len(self._overheads) == _OVERHEAD_WINDOW:
            self._overheads.sort()
            self._overhead_ms = self._overheads[int(0.95 * (_OVERHEAD_WINDOW - 1))]
            self._overhead_until_s = now_s + _OVERHEAD_OLDEST_S
            self._overheads.clear()

    def overhead_ms(self, now_s: float) -> float:
        """What an answer costs outside queue and inference, as seen lately.

        What was learnt in a burst is soon forgotten: it would turn away every request with a tight
        deadline, and those that are turned away teach nothing better.
        """
        return self._overhead_ms if now_s <= self._overhead_until_s else OVERHEAD_START_MS
