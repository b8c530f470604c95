"""Confidence intervals of means over few seeds."""

import functools
import math

import numpy as np
from scipy import special


def mean_interval(values: np.typing.ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """The mean and the half-width of its Student t interval.

        m +- t_{n-1, (1 + level) / 2} s / sqrt(n)

    Args:
        values: One value per seed, [n].
        level: Confidence level.

    Returns:
        The mean and the half-width; the half-width is nan for n = 1.

    Example:
        >>> mean, half = mean_interval([0.90, 0.91, 0.92])
        >>> round(mean, 3), round(half, 4)
        (0.91, 0.0248)
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n == 1:
        return float(values[0]), float("nan")
    t = _t_quantile((1 + level) / 2, n - 1)
    # np.mean and np.std written out for speed: a sweep calls this tens of thousands of times.
    mean = values.sum() / n
    rest = values - mean
    std = math.sqrt((rest * rest).sum() / (n - 1))
    return float(mean), t * std / math.sqrt(n)


@functools.lru_cache(1024)
def _t_quantile(q: float, degrees: int) -> float:
    return float(special.stdtrit(degrees, q))  # scipy.stats.t.ppf, without its second of imports
