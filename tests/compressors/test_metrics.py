"""Scores per sample: their mean is the metric, and they are what the definition says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compressors import metrics
from gateway.evidence import accuracy_interval

_TWO = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=4, max_size=25)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if len(set(a)) == 1 or len(set(b)) == 1:
        return 0.0
    return max(0.0, float(stats.spearmanr(a, b).statistic))


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    if len(set(a)) == 1 or len(set(b)) == 1:
        return 0.0
    return max(0.0, float(np.corrcoef(a, b)[0, 1]))


def _r_squared(predicted: np.ndarray, targets: np.ndarray) -> float:
    spread = ((targets - targets.mean()) ** 2).sum()
    return max(0.0, float(1 - ((predicted - targets) ** 2).sum() / spread)) if spread else 0.0


@settings(max_examples=60)
@given(_TWO)
def test_the_fast_ways_agree_with_leaving_one_out(pairs: list[tuple[int, int]]) -> None:
    # Few different integers: ties, and columns that are constant once a sample has left.
    a, b = np.array(pairs, dtype=np.float64).T
    for fast, slow in (
        (metrics.spearman, _spearman),
        (metrics.pearson, _pearson),
        (metrics.r_squared, _r_squared),
    ):
        values = fast(a, b)
        np.testing.assert_allclose(values, metrics.pseudo_values(slow, a, b), atol=1e-9)
        assert values.mean() == pytest.approx(slow(a, b), abs=1e-12)


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = metrics.pseudo_values(lambda column: float(column.mean()), values)
    np.testing.assert_allclose(found, values, atol=1e-12)


def test_their_spread_is_that_of_the_statistic() -> None:
    # Over many test sets, the standard deviation of Spearman's correlation is what one test set's
    # pseudo-values say, within the error of 400 draws.
    random = np.random.default_rng(1)
    found, said = [], []
    for _ in range(400):
        a = random.normal(size=200)
        values = metrics.spearman(a, a + random.normal(size=200))
        found.append(values.mean())
        said.append(values.std() / np.sqrt(200))
    assert np.std(found) == pytest.approx(np.mean(said), rel=0.12)


def test_spearman_of_many_is_that_of_scipy() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 10_000))
    values = metrics.spearman(a, a + b)
    assert values.mean() == pytest.approx(stats.spearmanr(a, a + b).statistic, abs=1e-12)


def test_small_numbers_correlate_like_large_ones() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 40))
    for metric in (metrics.pearson, metrics.spearman):
        np.testing.assert_allclose(metric(a * 1e-9, b * 1e9), metric(a, b), atol=1e-6)


def test_a_constant_predicts_nothing() -> None:
    b = np.arange(10.0)
    for metric in (metrics.pearson, metrics.spearman):
        assert (metric(np.ones(10), b) == 0).all()
        assert (metric(-b, b) == 0).all()  # worse than nothing counts as nothing
    assert (metrics.r_squared(np.ones(10), np.ones(10)) == 0).all()


def test_token_accuracy_counts_tokens_and_ignores_padding() -> None:
    targets = np.array([[0, 1, 2], [1, -100, -100], [2, 2, -100], [-100, -100, -100]])
    logits = np.eye(3)[np.array([[0, 1, 0], [1, 0, 0], [2, 0, 0], [1, 1, 1]])]
    values = metrics.token_accuracy(logits, targets)
    assert values.shape == (4,)
    assert values.mean() == pytest.approx(4 / 6)  # right: 2 of 3, 1 of 1, 1 of 2
    masked = metrics.token_accuracy(logits, np.maximum(targets, 0), targets >= 0)
    np.testing.assert_allclose(masked, values)

    def slow(right: np.ndarray, tokens: np.ndarray) -> float:
        return float(right.sum() / tokens.sum())

    expected = metrics.pseudo_values(slow, np.array([2, 1, 1, 0]), np.array([3, 1, 2, 0]))
    np.testing.assert_allclose(values, expected)


def test_scores_that_are_means_already() -> None:
    logits = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert metrics.accuracy(logits, np.array([1, 1, 1])).tolist() == [1.0, 0.0, 1.0]
    close = metrics.closeness(np.array([[1.0], [2.0], [30.0]]), np.array([1.0, 4.0, 3.0]), span=4.0)
    assert close.tolist() == [1.0, 0.5, 0.0]
    a = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [3.0, 4.0]], np.float32)
    b = np.array([[0.0, 1.0], [2.0, 2.0], [1.0, 1.0], [-3.0, -4.0]], np.float32)
    np.testing.assert_allclose(metrics.cosine(a, b), [0, 1, 0, -1], atol=1e-12)


def test_a_rank_correlation_has_an_interval() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=(500, 1))
    values = metrics.spearman(a, a[:, 0] + random.normal(size=500))
    value, low, high, method = accuracy_interval(values)
    assert method == "cluster bootstrap, at least student"
    assert value == pytest.approx(values.mean())
    assert 0.02 < high - value < 0.08
    assert 0.02 < value - low < 0.08


def test_input_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="at least 3 samples to leave one out of, got 2"):
        metrics.spearman(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=r"as many samples in each column, got \[3, 4\]"):
        metrics.pearson(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match=r"one value a sample, got shape \(3, 2\)"):
        metrics.spearman(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ValueError, match="span: expected a number over 0"):
        metrics.closeness(np.ones(3), np.ones(3), span=0.0)
