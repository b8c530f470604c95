"""Correlations against SciPy's, and the coverage of the intervals."""

import numpy as np
import pytest
import scipy.stats

from mcjax.core.errors import UserError
from mcjax.evaluation.correlation import barrier, correlation

RNG = np.random.default_rng(0)
A = RNG.normal(size=21)
B = 0.7 * A + RNG.normal(size=21)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("rounded", [False, True])  # with ties
def test_against_scipy(method, rounded):
    a, b = (np.round(v, 0) if rounded else v for v in (A, B))
    statistic = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}[method]
    ours = correlation(a, b, method=method, num_resamples=5000)
    np.testing.assert_allclose(ours.value, statistic(a, b)[0], rtol=1e-12)
    rng = np.random.default_rng(5)
    drawn = [rng.integers(21, size=21) for _ in range(1000)]
    theirs = np.quantile([statistic(a[i], b[i])[0] for i in drawn], [0.025, 0.975])
    np.testing.assert_allclose([ours.low, ours.high], theirs, atol=0.06)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rho, rng = 0.6, np.random.default_rng(1)
    covered = 0
    for i in range(300):
        a = rng.normal(size=60)
        b = rho * a + np.sqrt(1 - rho**2) * rng.normal(size=60)
        _, low, high = correlation(a, b, level=0.9, num_resamples=300, seed=i)
        covered += low <= rho <= high
    assert 0.83 <= covered / 300 <= 0.96


def test_seeded():
    assert correlation(A, B, seed=1) == correlation(A, B, seed=1)
    assert correlation(A, B, seed=1) != correlation(A, B, seed=2)


def test_few_points_some_of_whose_resamples_are_constant():
    value, low, high = correlation([0, 1, 2], [0, 1, 3])
    assert -1 <= low <= value <= high <= 1


def test_barrier_by_hand_and_against_a_plain_bootstrap():
    rng = np.random.default_rng(2)
    losses = rng.exponential(size=(5, 200)) + np.array([0.2, 0.5, 1.5, 0.3, 0.6])[:, None]
    ours = barrier(losses, num_resamples=3000)
    means = losses.mean(1)
    assert ours.value == pytest.approx(means[2] - max(means[0], means[4]))
    plain = []
    for _ in range(1000):
        m = losses[:, rng.integers(200, size=200)].mean(1)
        plain.append(m.max() - max(m[0], m[-1]))
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(plain, [0.025, 0.975]), atol=0.03)


def test_no_barrier_is_zero():
    losses = np.array([3.0, 2.0, 1.0])[:, None] + np.random.default_rng(3).normal(size=(3, 50))
    assert barrier(losses) == (0, 0, 0)


@pytest.mark.parametrize(
    ("a", "b", "options", "match"),
    [
        ([1, 2], [1, 2], {}, "at least 3"),
        ([1, 2, 3], [1, 2], {}, "same length"),
        ([1, 2, 3], [1, 1, 1], {}, "the same at every point"),
        ([1, 2, np.nan], [1, 2, 3], {}, "not finite"),
        ([1, 2, 3], [1, 2, 4], {"method": "kendall"}, "unknown method"),
        ([1, 2, 3], [1, 2, 4], {"level": 95}, "level is 95"),
        ([1, 2, 3], [1, 2, 4], {"num_resamples": 0}, "num_resamples"),
    ],
)
def test_mistakes(a, b, options, match):
    with pytest.raises(UserError, match=match):
        correlation(a, b, **options)


def test_barriers_mistakes():
    with pytest.raises(UserError, match=r"shape \[3\]"):
        barrier([1.0, 2.0, 1.0])
    with pytest.raises(UserError, match="point 1 are not finite"):
        barrier([[1.0], [np.nan], [1.0]])
