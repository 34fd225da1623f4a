"""Metrics as one score per sample, so that intervals and paired differences work for all of them.

Accuracy is a mean over samples and so are most metrics; a rank correlation is not. Its jackknife
*pseudo-values* (Tukey 1958, Ann. Math. Stat. 29:614; reviewed by Miller 1974, Biometrika 61:1) are:

    p_i = n T - (n - 1) T_without_i,

one number per sample, whose spread tells how far T varies between test sets. Their own mean is T
less the jackknife's estimate of its bias; a card should show T as everybody computes it, so they
are shifted by a constant until their mean is T. They may lie outside [0, 1].

A metric lies in [0, 1] here: a correlation, or an R², below 0 counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compressors.task import Array

_CELLS = 4_000_000  # comparisons held at a time: 32 MB each of a few matrices
IGNORED = -100
"""The target that counts for nothing, as in PyTorch's cross-entropy."""


def pseudo_values(statistic: Callable[..., float], *columns: Array) -> Array:
    """(n,) pseudo-values of `statistic(*columns)`, each column (n, ...). It is called n + 1 times;
    `pearson`, `spearman`, `r_squared` and `token_accuracy` need no such loop.

    Raises:
        ValueError: fewer than 3 samples, or columns that differ in number.
    """
    count = _count(*columns)
    rows = np.arange(count)
    without = np.array([statistic(*(c[rows != i] for c in columns)) for i in rows])
    return _recentred(float(statistic(*columns)), without)


def accuracy(logits: Array, targets: Array) -> Array:
    """(n,) 1 where the largest of `logits` (n, ..., classes) is the target's class, else 0."""
    return np.asarray(logits.argmax(axis=-1) == targets, dtype=np.float64)


def closeness(predicted: Array, targets: Array, span: float) -> Array:
    """(n,) 1 - |error| / `span`, and 0 from an error of `span` on: for regression, where `span` is
    an error that makes a prediction worthless, such as the range of the training targets."""
    if not span > 0:
        raise ValueError(f"span: expected a number over 0, got {span}")
    errors = np.abs(_flat(predicted) - _flat(targets))
    return np.asarray(np.clip(1 - errors / span, 0.0, 1.0))


def cosine(a: Array, b: Array) -> Array:
    """(n,) cosine similarities of the rows of `a` and `b`, (n, d), from -1 to 1; 0 for a row of
    zeros, which points nowhere."""
    a, b = (np.asarray(each, dtype=np.float64) for each in (a, b))
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    products = (a * b).sum(axis=-1)
    return np.clip(_ratio(products, lengths), -1.0, 1.0)


def token_accuracy(logits: Array, targets: Array, mask: Array | None = None) -> Array:
    """(n,) pseudo-values of right tokens / tokens: `logits` (n, t, classes), `targets` (n, t).

    Tokens count where `mask` (n, t) is not 0; without one, where the target is not `IGNORED`.
    Long samples weigh more than short ones, as is usual for tagging.
    """
    counted = targets != IGNORED if mask is None else np.asarray(mask) != 0
    right = ((logits.argmax(axis=-1) == targets) & counted).sum(axis=1).astype(np.float64)
    tokens = counted.sum(axis=1).astype(np.float64)
    _count(right)
    value = _ratio(right.sum(), tokens.sum())
    return _recentred(float(value), _ratio(right.sum() - right, tokens.sum() - tokens))


def r_squared(predicted: Array, targets: Array) -> Array:
    """(n,) pseudo-values of the coefficient of determination, 1 - SSE / SST, of values (n,) or
    (n, 1); 0 where all targets are equal."""
    predicted, targets = _flat(predicted), _flat(targets)
    _count(predicted, targets)
    errors = (predicted - targets) ** 2
    spread, spreads = _products(targets, targets)

    def explained(missed: Array, total: Array) -> Array:
        return np.maximum(0.0, np.where(total > 0, 1 - _ratio(missed, total), 0.0))

    value = explained(errors.sum(), spread)
    return _recentred(float(value), explained(errors.sum() - errors, spreads))


def pearson(a: Array, b: Array) -> Array:
    """(n,) pseudo-values of the linear correlation of `a` and `b`, (n,) or (n, 1); the correlation
    with a constant is 0."""
    a, b = _flat(a), _flat(b)
    _count(a, b)
    whole, without = zip(*(_products(x, y) for x, y in ((a, b), (a, a), (b, b))), strict=True)
    return _recentred(float(_correlation(*whole)), _correlation(*without))


def spearman(a: Array, b: Array) -> Array:
    """(n,) pseudo-values of the rank correlation of `a` and `b`, (n,) or (n, 1); equal values share
    their mean rank. Time grows with n²: seconds at n = 10,000.

    Ranks are centred. Without sample i, that of j is less by 1/2 where j's was the larger and more
    by 1/2 where it was the smaller: so the sums that the correlation is made of follow from
    comparing every two samples.
    """
    a, b = _ranks(_flat(a)), _ranks(_flat(b))
    count = _count(a, b)
    without = np.empty((3, count))
    step = max(1, _CELLS // count)
    for start in range(0, count, step):
        rows = np.arange(start, min(count, start + step))
        new_a, new_b = (ranks - 0.5 * np.sign(ranks - ranks[rows, None]) for ranks in (a, b))
        for new in (new_a, new_b):
            new[rows - start, rows] = 0.0  # left out
        for sums, x, y in zip(without, (new_a, new_a, new_b), (new_b, new_a, new_b), strict=True):
            sums[rows] = np.einsum("ij,ij->i", x, y)
    return _recentred(float(_correlation(a @ b, a @ a, b @ b)), _correlation(*without))


def _correlation(ab: Array, aa: Array, bb: Array) -> Array:
    return np.maximum(0.0, _ratio(ab, np.sqrt(aa * bb)))


def _products(a: Array, b: Array) -> tuple[Array, Array]:
    """The sum of products of deviations from the mean: of all samples, and without each (n,)."""
    count = len(a)
    product = (a - a.mean()) * (b - b.mean())
    total = product.sum()
    without = total - product * count / (count - 1)
    # Where one sample made up the whole, rounding must not pass for what is left.
    return total, np.where(np.abs(without) > 1e-12 * np.abs(product).sum(), without, 0.0)


def _ranks(values: Array) -> Array:
    """Centred ranks (n,); equal values share their mean."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + len(values)) / 2)[index], dtype=np.float64)


def _recentred(value: float, without: Array) -> Array:
    count = len(without)
    values = count * value - (count - 1) * without
    return np.asarray(values + (value - values.mean()), dtype=np.float64)


def _ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is."""
    return np.asarray(np.where(b != 0, a / np.where(b != 0, b, 1.0), 0.0))


def _flat(values: Array) -> Array:
    values = np.asarray(values, dtype=np.float64)
    flat = values.reshape(len(values), -1)
    if flat.shape[1] != 1:
        raise ValueError(f"expected one value a sample, got shape {values.shape}")
    return flat[:, 0]


def _count(*columns: Array) -> int:
    counts = {len(column) for column in columns}
    if len(counts) != 1:
        raise ValueError(f"expected as many samples in each column, got {sorted(counts)}")
    (count,) = counts
    if count < 3:
        raise ValueError(f"expected at least 3 samples to leave one out of, got {count}")
    return count
