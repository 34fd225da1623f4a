"""What scores prove: 95 % intervals of a metric and of the difference of two.

A leaf (numpy only), so that the compressors, which measure, and the gateway, which compares
variants when it loads a store, use the same arithmetic.

Every interval here obeys two rules that a plain bootstrap breaks.

*Samples that share a source are not independent.* Sources (clusters) are resampled, not samples
(Davison & Hinkley 1997, section 3.8), and score intervals count an *effective* number of samples:
n divided by the design effect, the factor by which clustering widens the variance (Kish 1965;
Korn & Graubard 1998; compared with others by Franco, Little, Louis & Slud 2019, J. Surv. Stat.
Methodol. 7:334).

*A small or flawless test set proves little.* The bootstrap of twenty right answers has no width:
it would call the accuracy exactly 1. So an interval is never narrower than Wilson's (1927), for an
accuracy, or than that of Agresti & Min (2005, Stat. Med. 24:729), for a paired difference, which
adds half a sample to each of the four outcomes. Where nothing varies, nothing says how strongly
samples of a source go together; then each source counts as one sample. That caution fades as
variation is seen: the design effect is averaged with its worst value, which weighs as much as two
sources that vary.

Scores need not be right or wrong. Those that are *graded* within [0, 1] vary less than right and
wrong answers of the same mean do, so their design effect may be below 1 and the interval is that
much narrower. Those that leave [0, 1], such as pseudo-values of a rank correlation, have no worst
case to fall back on: there the interval is at least Student's on the sources' totals. For a paired
difference of scores that are not all right or wrong the added half samples fade as differences are
seen, like the worst design effect does: differences that were measured to be small are small.

Nothing is corrected for the number of pairs compared: each interval is 95 % on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[Any]
Interval = tuple[float, float, float, str]

RESAMPLES = 2000
SEED = 20260
_Z = 1.959963984540054  # the normal quantile of 97.5 %
_CAUTION = 2.0  # how many varying sources the worst design effect weighs


def accuracy_interval(scores: Scores, clusters: Scores | None = None) -> Interval:
    """The mean of `scores` (n,) with its 95 % interval: value, low, high, method.

    Scores are any finite numbers whose mean lies in [0, 1]; so do the ends of the interval.
    `clusters` (n,) are integers, equal where samples share a source; None when none do.

    Raises:
        ValueError: no scores, or scores and clusters that do not go together.
    """
    groups = _Groups(clusters, len(scores))
    scores = np.asarray(scores, dtype=np.float64)
    value = float(scores.mean())
    binary = _binary(scores)
    if groups.count == groups.samples and binary:
        return (value, *_wilson(value, groups.samples, _Z), "wilson")
    sums = groups.sums(scores)
    if _bounded(scores):
        # Only sources that got something wrong, and only those that got something right, inform.
        informative = min(np.count_nonzero(sums), np.count_nonzero(groups.sums(1.0 - scores)))
        effect = groups.design_effect(
            sums, value * (1 - value), int(informative), least=1.0 if binary else 0.0
        )
        low, high = _wilson(value, groups.samples / effect, groups.quantile)
        method = "wilson"
    elif groups.count == 1:
        return value, 0.0, 1.0, "one source"  # which shows nothing about another
    else:
        half = groups.quantile * np.sqrt(groups.squared_deviations(sums, value)) / groups.samples
        low, high, method = value - half, value + half, "student"
    drawn_low, drawn_high = np.quantile(_bootstrap(sums[None], groups)[0], (0.025, 0.975))
    return (
        value,
        float(max(0.0, min(low, drawn_low, value))),
        float(min(1.0, max(high, drawn_high, value))),
        f"cluster bootstrap, at least {method}",
    )


def paired_interval(a: Scores, b: Scores, clusters: Scores | None = None) -> Interval:
    """The mean of a - b over the same samples (n,), with its 95 % interval: value, low, high,
    method. Raises as `accuracy_interval` does."""
    groups = _Groups(clusters, len(a))
    pair = _Pair(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    means = _bootstrap(groups.sums(pair.difference)[None], groups)[0]
    value, low, high = _paired(pair, means, groups)
    return value, low, high, f"cluster bootstrap, at least {pair.method}"


def paired_lower_bounds(
    scores_by_variant: Mapping[str, Scores], clusters: Scores | None = None
) -> dict[tuple[str, str], float]:
    """For every ordered pair (a, b): the lower end of `paired_interval(a, b)`.

    "Shown not to be worse than b by more than m" is `bounds[a, b] >= -m`. All pairs share one set
    of resamples: 20 variants of 10,000 samples take less than a second.

    Raises:
        ValueError: variants whose scores differ in number.
    """
    names = list(scores_by_variant)
    if not names:
        return {}
    scores = [np.asarray(scores_by_variant[name], dtype=np.float64) for name in names]
    groups = _Groups(clusters, len(scores[0]))
    drawn = _bootstrap(np.stack([groups.sums(each) for each in scores]), groups)
    bounds = {(name, name): 0.0 for name in names}
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            _, low, high = _paired(_Pair(scores[i], scores[j]), drawn[i] - drawn[j], groups)
            bounds[a, b], bounds[b, a] = low, -high
    return bounds


class _Pair:
    """Scores of two variants on the same samples, and what a difference of theirs may be.

    Attributes:
        difference: (n,), a - b.
        right_or_wrong: whether every score is 0 or 1.
        largest: the difference that a sample not seen might show: 1 between scores in [0, 1], else
            the larger of the two standard deviations.
    """

    def __init__(self, a: Scores, b: Scores) -> None:
        self.difference = a - b
        self.right_or_wrong = _binary(a) and _binary(b)
        bounded = self.right_or_wrong or (_bounded(a) and _bounded(b))
        self.largest = 1.0 if bounded else float(max(a.std(), b.std()))
        self.method = "agresti-min" if self.right_or_wrong else "student"


def _binary(scores: Scores) -> bool:
    return bool(((scores == 0.0) | (scores == 1.0)).all())


def _bounded(scores: Scores) -> bool:
    return bool(scores.min() >= 0.0 and scores.max() <= 1.0)


class _Groups:
    """Which samples share a source, and what follows from that alone."""

    def __init__(self, clusters: Scores | None, samples: int) -> None:
        if samples == 0:
            raise ValueError("expected at least one score, got none")
        labels = np.arange(samples) if clusters is None else np.asarray(clusters)
        if labels.shape != (samples,):
            raise ValueError(f"clusters: expected shape ({samples},), got {labels.shape}")
        self.samples = samples
        self.index = np.unique(labels, return_inverse=True)[1]
        self.sizes = np.bincount(self.index).astype(np.float64)
        self.count = len(self.sizes)
        # Variance estimated from so many sources calls for Student's quantile with count - 1
        # degrees of freedom, here by its series (Abramowitz & Stegun 26.7.5).
        freedom = max(1, self.count - 1)
        self.quantile = (
            _Z
            + (_Z**3 + _Z) / (4 * freedom)
            + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)
        )

    def sums(self, scores: Scores) -> Scores:
        """The total of each source."""
        if scores.shape != (self.samples,):
            raise ValueError(f"scores: expected shape ({self.samples},), got {scores.shape}")
        return np.bincount(self.index, weights=scores, minlength=self.count)

    def squared_deviations(self, sums: Scores, mean: float) -> float:
        """What the variance of the mean, times samples squared, is estimated by (Cochran 1977,
        section 11.3: a ratio of totals)."""
        return float(((sums - mean * self.sizes) ** 2).sum()) * self.count / max(1, self.count - 1)

    def design_effect(
        self, sums: Scores, variance: float, informative: int, least: float = 1.0
    ) -> float:
        """By how much sharing sources widens the variance of the mean; at least `least`.

        `variance` is that of one sample; `informative` sources are those whose outcome is not the
        common one: only they can show how samples of a source go together.
        """
        worst = float((self.sizes**2).sum() / self.samples)
        if variance <= 0 or informative == 0:
            return worst
        mean = float(sums.sum() / self.samples)
        seen = self.squared_deviations(sums, mean) / (self.samples * variance)
        return max(least, (seen * informative + worst * _CAUTION) / (informative + _CAUTION))


def _wilson(value: float, samples: float, z: float) -> tuple[float, float]:
    scale = 1 + z * z / samples
    centre = (value + z * z / (2 * samples)) / scale
    half = z * np.sqrt(value * (1 - value) / samples + (z / (2 * samples)) ** 2) / scale
    # Rounding must not put the estimate outside its own interval.
    return float(max(0.0, min(centre - half, value))), float(min(1.0, max(centre + half, value)))


def _paired(pair: _Pair, drawn: Scores, groups: _Groups) -> tuple[float, float, float]:
    difference = pair.difference
    value = float(difference.mean())
    if groups.count == 1:
        return value, -1.0, 1.0  # one source shows nothing about another
    sums = groups.sums(difference)
    informative = int(np.count_nonzero(groups.sums(np.abs(difference))))
    effect = groups.design_effect(sums, float(difference.var()), informative)
    weight = 1.0 if pair.right_or_wrong else _CAUTION / (_CAUTION + informative)
    # Two pairs more, each worth `effect` samples: half a pair for each of "a alone is right",
    # "b alone is right", "both are", "neither is".
    total = groups.samples + 2 * effect * weight
    mean, most = float(sums.sum()) / total, pair.largest
    added = 0.5 * (most - mean) ** 2 + 0.5 * (most + mean) ** 2 + mean**2
    spread = groups.squared_deviations(sums, mean) + effect**2 * weight * added
    half = groups.quantile * np.sqrt(spread) / total
    drawn_low, drawn_high = np.quantile(drawn, (0.025, 0.975))
    return (
        value,
        float(max(-1.0, min(mean - half, drawn_low, value))),
        float(min(1.0, max(mean + half, drawn_high, value))),
    )


def _bootstrap(totals: Scores, groups: _Groups) -> Scores:
    """Means of every row of `totals` (rows, sources) in each resample: (rows, RESAMPLES).

    One resample draws as many sources as there are, with replacement; how often each was drawn is
    a row of a matrix, so that all means are one product.
    """
    random = np.random.default_rng(SEED)
    count = groups.count
    both = np.concatenate([totals, groups.sizes[None]]).T
    means = np.empty((len(totals), RESAMPLES))
    # As many resamples at a time as keep the matrix of counts below 32 MB.
    step = int(np.clip(4_000_000 // count, 1, RESAMPLES))
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = random.integers(0, count, size=(rows, count))
        drawn += np.arange(rows)[:, None] * count
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        products = counts.astype(np.float64) @ both
        means[:, start : start + rows] = (products[:, :-1] / products[:, -1:]).T
    return means
