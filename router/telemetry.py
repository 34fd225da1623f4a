"""Telemetry: what was learnt from finished batches and answers, for the next snapshot.

Windows drop their oldest samples, by count and by age: after a quiet while the card is believed
again, so a slow minute does not keep a variant out for ever. It knows no clock: time is an
argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from router.caution import Caution
from router.drift import OLDEST_S, Drift
from router.margin import Margin, Outcome
from router.menu import Percentile

_OVERHEAD_WINDOW = 128
_OVERHEAD_OLDEST_S = 2.0
# What was learnt of waiting in a burst is soon forgotten, for the same reason as the overhead.
_MARGIN_OLDEST_S = 2.0
# Until answers were seen: parsing, a thread hop and answering on a 2020s server core.
OVERHEAD_START_MS = 0.5


class Telemetry:
    """Not thread-safe: one thread observes. The mappings it hands out are replaced, never changed,
    so other threads may read them."""

    def __init__(
        self, percentile: Percentile = 99, overhead_start_ms: float = OVERHEAD_START_MS
    ) -> None:
        self.batches = 0
        # When a batch last finished, or all was forgotten.
        self.learnt_s = -math.inf
        self._percentile: Percentile = percentile
        self._drift = Drift()
        self._tail = Margin(percentile)
        # Fewer batches cannot tell what is usual beyond the percentile from an accident.
        self._tail_fewest = round(2 / (1 - percentile / 100))
        self._tail_count = 0
        self._tail_until_s = 0.0
        self._tail_changes = 0
        # Requests that found a lane free and those that had to wait differ in what they err by.
        self._margins = {queued: Margin(percentile) for queued in (False, True)}
        self._fresh_until_s = {False: 0.0, True: 0.0}
        self._caution = Caution()
        self.least_overhead_ms = overhead_start_ms
        self._overheads: list[float] = []
        self._overhead_ms = overhead_start_ms
        self._overhead_until_s = 0.0

    def batch(
        self,
        model: str,
        variant: str,
        expected_ms: float,
        promised_ms: float,
        actual_ms: float,
        now_s: float,
    ) -> None:
        """A batch that succeeded took `actual_ms`.

        Its card says `expected_ms` at the median and `promised_ms` at the promised percentile.
        """
        self.batches += 1
        self.learnt_s = now_s
        key = model, variant
        factor = self._drift.factor(key, now_s)
        # How batches scattered at another speed says little of how they do at this one.
        if now_s > self._tail_until_s or self._drift.changes != self._tail_changes:
            self._tail, self._tail_count = Margin(self._percentile), 0
            self._tail_changes = self._drift.changes
        self._tail.observe(promised_ms * factor, actual_ms)
        self._tail_count += 1
        self._tail_until_s = now_s + OLDEST_S
        self._drift.observe(key, expected_ms, actual_ms, now_s)

    def forget(self, model: str, variant: str) -> None:
        """Another build has that name now."""
        self._drift.forget((model, variant))
        self.batches += 1  # what was worked out from it is out of date

    def start_anew(self, now_s: float) -> None:
        """Believe the cards again, and that the gateway costs what it did at first."""
        self._drift = Drift()
        self._tail, self._tail_count = Margin(self._percentile), 0
        self._overhead_until_s = 0.0
        self._overheads.clear()
        self.batches += 1
        self.learnt_s = now_s

    def slowdown(self, model: str, variants: Iterable[str], now_s: float) -> Mapping[str, float]:
        """By variant, how many times longer than its card's median its batches take lately."""
        return self._drift.factors(model, variants, now_s)

    def tail(self, now_s: float) -> float:
        """How many times the corrected card's promised percentile covers as it should.

        Forgotten after a quiet while: requests that it turns away would teach nothing better.
        """
        if self._tail_count < self._tail_fewest or now_s > self._tail_until_s:
            return 1.0
        return self._tail.bound(1.0)

    def margin(self, queued: bool, now_s: float) -> float:
        """How many times the predicted latency covers as it should.

        Args:
            queued: whether the request has to wait for a lane.
        """
        return self._margins[queued].bound(1.0) if now_s <= self._fresh_until_s[queued] else 1.0

    def answer(
        self,
        queued: bool,
        predicted_ms: float,
        bound_ms: float,
        actual_ms: float,
        outcome: Outcome,
        now_s: float,
    ) -> None:
        """What became of a request that was predicted to take `predicted_ms`; 0 teaches nothing.

        Args:
            bound_ms: what was told to the caller: the prediction times the margin of then, or the
                deadline where that was less.
            actual_ms: its latency, or its age when it was dropped.
        """
        if predicted_ms <= 0:
            return
        if now_s > self._fresh_until_s[queued]:
            self._margins[queued] = Margin(self._percentile)
            if queued:
                self._caution = Caution()
        if queued:
            self._caution.observe(outcome == "dropped")
        self._margins[queued].observe(predicted_ms, actual_ms, outcome, bound_ms)
        self._fresh_until_s[queued] = now_s + _MARGIN_OLDEST_S

    def caution(self, now_s: float) -> float:
        """What is added to a planned wait before a request is let in, as a share of it."""
        return self._caution.share if now_s <= self._fresh_until_s[True] else 0.0

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
        return self._overhead_ms if now_s <= self._overhead_until_s else self.least_overhead_ms
