"""The margin: how far above its prediction a latency stays, with a chosen probability.

No distribution is assumed. A score is actual / predicted; the bound is the prediction times a
quantile of the last scores, and which quantile is steered by the misses themselves:

- Steering the level by misses is adaptive conformal inference (Gibbs & Candès, NeurIPS 2021). It is
  the sum of the misses that steers, through a saturating function, as in the integral part of
  conformal PID control (Angelopoulos, Candès & Tibshirani, NeurIPS 2023). Tracking the quantile
  itself with a step would swing between covering all and covering none; here a step moves a rank in
  the window, so the scores set its size.
- The scorecaster of the latter: scores are kept relative to a level that follows slow drift, and
  that jumps at a change point, so that what was learnt of the noise's shape outlives a change of
  the machine's speed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import exp, log, sqrt
from statistics import median_high
from typing import Literal

from router.menu import Percentile

Outcome = Literal["success", "dropped", "ignored"]
"""What became of a request.

success: it was answered; its latency is known.
dropped: its deadline passed before it was run, or before it was answered: it takes at least as long
    as it waited so far.
ignored: the caller left, it was refused, or the engine failed: nothing is known of its latency.
"""

# Enough for 15 scores above the 99th percentile, few enough to follow a day's rise and fall.
WINDOW = 1500
# Requests until a surplus of misses has faded to 1/e. Feedback comes up to a few hundred requests
# late, and steering faster than feedback comes oscillates.
_RELAX = 600.0
# The largest surplus of misses, in standard deviations of one: a change leaves it as a debt, which
# is paid back with too wide a bound. 15 requests at the 99th percentile, 75 at the median: two
# standard deviations of the misses in 5,000 requests.
_DEBT = 150.0
# Drift and change points are sought in the medians of so many scores.
_BLOCK = 16
_DRIFT = 0.05
# A change point: so many blocks in a row to the same side of the window's median, by so many times
# what blocks stray from it. Of the strayings as many are kept as tell steady noise from a change,
# correlated noise included.
_RUN = 3
_FAR = 3.0
_STRAYINGS = 64
_FEWEST = 8 * _BLOCK
# Requests under way at a change point were promised bounds that it made void.
_UNDER_WAY = 256
_NORMAL_MAD = 1.4826


class Margin:
    """An upper bound on latency that holds for `percentile` % of requests, over any few thousand.

    Until something was observed the bound is the prediction. Not thread-safe: one thread observes;
    others may call `bound`.
    """

    __slots__ = (
        "_block",
        "_gain",
        "_level",
        "_limit",
        "_logit",
        "_miss",
        "_ordered",
        "_ratio",
        "_scores",
        "_shift",
        "_strayings",
        "_void",
    )

    def __init__(self, percentile: Percentile) -> None:
        miss = 1.0 - percentile / 100
        self._miss = miss
        self._logit = log((1.0 - miss) / miss)
        # The slope of a probability in its log-odds, so that every percentile relaxes alike.
        self._gain = 1.0 / (_RELAX * miss * (1.0 - miss))
        self._limit = _DEBT * sqrt(miss * (1.0 - miss)) * self._gain
        self._shift = 0.0
        self._level = 1.0
        self._ratio = 1.0
        # Relative to the level: by age, and the same in order.
        self._scores: deque[float] = deque()
        self._ordered: list[float] = []
        self._block: list[float] = []
        self._strayings: deque[float] = deque(maxlen=_STRAYINGS)
        self._void = 0

    def bound(self, predicted_ms: float) -> float:
        """The latency in ms that a request predicted to take `predicted_ms` stays within."""
        return predicted_ms * self._ratio

    def observe(
        self,
        predicted_ms: float,
        actual_ms: float,
        outcome: Outcome = "success",
        bound_ms: float | None = None,
    ) -> None:
        """Learn what became of a request.

        Args:
            predicted_ms: the prediction that its bound was made from; above 0.
            actual_ms: its latency, or, where it was dropped, its age when it was; above 0.
            bound_ms: the bound it was given. Without it the present one is held to have been,
                which errs where outcomes come late and misses come in clusters.
        """
        if outcome == "ignored":
            return
        if bound_ms is None or self._void:
            bound_ms = predicted_ms * self._ratio
        missed = actual_ms > bound_ms
        if outcome == "dropped" and not missed:
            return  # it may have kept its bound, or not
        if self._void:
            self._void -= 1
        shift = self._shift + self._gain * (missed - self._miss)
        self._shift = max(-self._limit, min(self._limit, shift))
        # A dropped request's age stands for its latency: a quantile needs only to know that it was
        # beyond.
        score = actual_ms / (predicted_ms * self._level)
        ordered = self._ordered
        self._scores.append(score)
        insort(ordered, score)
        if len(ordered) > WINDOW:
            del ordered[bisect_left(ordered, self._scores.popleft())]
        self._block.append(score)
        if len(self._block) == _BLOCK:
            self._follow()
            ordered = self._ordered
        # The least rank that covers as wished when all ranks of the next score are as likely.
        rank = int((len(ordered) + 1) / (1.0 + exp(-self._logit - self._shift)))
        self._ratio = self._level * ordered[min(rank, len(ordered) - 1)]

    def _follow(self) -> None:
        """Move the level after the last block: a little, or all the way after a change point."""
        strayings = self._strayings
        usual = self._ordered[len(self._ordered) // 2]
        strayed = log(median_high(self._block) / usual)
        self._block.clear()
        strayings.append(strayed)
        if len(self._ordered) < _FEWEST:
            return
        far = _FAR * _NORMAL_MAD * median_high([abs(other) for other in strayings])
        last = list(strayings)[-_RUN:]
        if min(last) > far or max(last) < -far:
            self._jump()
        else:
            self._level *= exp(_DRIFT * max(-far, min(far, strayed)))

    def _jump(self) -> None:
        """Take the last blocks for the new level, and move to it what came before."""
        new = [self._scores.pop() for _ in range(_RUN * _BLOCK)]
        new.reverse()
        factor = median_high(new) / median_high(self._scores)
        self._level *= factor
        self._scores.extend(score / factor for score in new)
        self._ordered = sorted(self._scores)
        for _ in range(_RUN):
            self._strayings.pop()
        self._shift = 0.0
        self._void = _UNDER_WAY
