"""Correlations along a path and loss barriers, with bootstrap intervals."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats

from mcjax.core.errors import UserError
from mcjax.core.keys import check_seed

METHODS = ("pearson", "spearman")
NUM_RESAMPLES = 2000

# Number of resamples processed at once, to limit memory.
_CHUNK = 50


class Interval(NamedTuple):
    """An estimate and its bootstrap percentile interval.

    Attributes:
        value: Estimate from all the data.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def correlation(
    a: np.typing.ArrayLike,
    b: np.typing.ArrayLike,
    *,
    method: str = "pearson",
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The correlation of two quantities over the points of a path.

    The interval resamples pairs. Neighbouring points of a path are not independent, so it measures
    how much the correlation depends on single points and is too narrow as a statement about other
    paths: report several seeds as well. Resamples in which a quantity is constant are skipped.

    Args:
        a: One value per point, [T], T at least 3.
        b: Likewise.
        method: "pearson", or "spearman" (rank correlation; ties get their mean rank).
        level: Confidence level.
        num_resamples: Number of bootstrap resamples of the points.
        seed: Seed of the resampling.

    Returns:
        The correlation and its interval.

    Raises:
        UserError: The method is unknown; there are fewer than 3 points; lengths differ; a value is
            not finite; a quantity is constant; level is outside (0, 1).

    Example:
        >>> value, low, high = correlation([1, 2, 3, 4], [1, 4, 9, 16])
        >>> round(value, 3)
        0.984
        >>> correlation([1, 2, 3, 4], [1, 4, 9, 16], method="spearman").value
        1.0

    Source: Efron & Tibshirani 1993, section 13.3 (percentile interval).
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}; use one of {', '.join(METHODS)}")
    if a.ndim != 1 or a.shape != b.shape or len(a) < 3:
        raise UserError(
            f"quantities have shapes {list(a.shape)} and {list(b.shape)}; "
            "give two of the same length, at least 3"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("a quantity is not finite at some point; leave that point out")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise UserError("a quantity is the same at every point; it has no correlation")
    rng = _check(level, num_resamples, seed)
    rows = rng.integers(len(a), size=(num_resamples, len(a)))
    resampled = _correlate(a[rows], b[rows], method)
    return _interval(
        float(_correlate(a[None], b[None], method)[0]), resampled[np.isfinite(resampled)], level
    )


def barrier(
    losses: np.typing.ArrayLike,
    *,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """max_t L(t) - max(L(0), L(1)), with L(t) the mean over examples, and its interval.

    Each resample uses the same examples at every t, because the losses of one example are
    correlated. The barrier is never negative: it is 0 if no point is above the larger endpoint. Noise
    can only raise it, so an interval that starts at 0 shows no barrier.

    Args:
        losses: Per-example losses, [T, N], at T >= 2 points in order, endpoints included.
        level: Confidence level.
        num_resamples: Number of bootstrap resamples of the examples.
        seed: Seed of the resampling.

    Returns:
        The barrier and its interval, in the units of the losses.

    Raises:
        UserError: losses is not [T, N] or not finite; level is outside (0, 1).

    Example:
        >>> barrier([[1.0, 1.0], [4.0, 4.0], [2.0, 2.0]])
        Interval(value=2.0, low=2.0, high=2.0)

    Source: Frankle et al. 2020 (error barrier), here above the larger end.
    """
    losses = np.asarray(losses, np.float64)
    if losses.ndim != 2 or len(losses) < 2 or not losses.shape[1]:
        raise UserError(
            f"losses have shape {list(losses.shape)}; give [points, examples], at least 2 points"
        )
    finite = np.isfinite(losses).all(1)
    if not finite.all():
        raise UserError(f"losses at point {int(finite.argmin())} are not finite")
    rng = _check(level, num_resamples, seed)

    def height(means: np.ndarray) -> np.ndarray:
        return means.max(0) - np.maximum(means[0], means[-1])

    num_examples = losses.shape[1]
    heights = []
    for first in range(0, num_resamples, _CHUNK):
        num = min(_CHUNK, num_resamples - first)
        # Counts of each example, so that resampling is a matrix product.
        rows = rng.integers(num_examples, size=(num, num_examples))
        counts = np.stack([np.bincount(row, minlength=num_examples) for row in rows], axis=1)
        heights.append(height(losses @ counts / num_examples))
    return _interval(
        float(height(losses.mean(1, keepdims=True))[0]), np.concatenate(heights), level
    )


def rank_correlation(a: np.typing.ArrayLike, b: np.typing.ArrayLike) -> float:
    """Spearman's correlation, without an interval.

    Args:
        a: One value per point, [T].
        b: Likewise.

    Returns:
        The correlation of the ranks, where ties get their mean rank; nan if a or b is constant.

    Example:
        >>> rank_correlation([1, 2, 3, 4], [1, 4, 9, 16])
        1.0
    """
    return float(_spearman(np.asarray(a, np.float64), np.asarray(b, np.float64)))


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return r.clip(-1, 1)


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _pearson(scipy.stats.rankdata(a, axis=-1), scipy.stats.rankdata(b, axis=-1))


_CORRELATE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pearson": _pearson,
    "spearman": _spearman,
}


def _correlate(a: np.ndarray, b: np.ndarray, method: str) -> np.ndarray:
    constant = (np.ptp(a, axis=-1) == 0) | (np.ptp(b, axis=-1) == 0)
    return np.where(constant, np.nan, _CORRELATE[method](a, b))


def _check(level: float, num_resamples: int, seed: int) -> np.random.Generator:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; give a number between 0 and 1")
    if num_resamples < 1:
        raise UserError(f"num_resamples is {num_resamples}; give at least 1")
    return np.random.default_rng(check_seed(seed))


def _interval(value: float, resampled: np.ndarray, level: float) -> Interval:
    if not len(resampled):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
