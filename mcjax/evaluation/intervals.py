"""Confidence intervals: of means over few seeds, and of rates over images."""

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


def rate_interval(
    rate: np.typing.ArrayLike, num: int, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a rate over independent images.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    It covers the choice of the images, not that of the network: a network's accuracy on all images
    of the kind lies in it with this probability.

    Args:
        rate: Fractions in [0, 1], of any shape.
        num: Number of images.
        level: Confidence level.

    Returns:
        Its lower and upper end, of the rates' shape.

    Raises:
        ValueError: num is less than 1.

    Example:
        >>> low, high = rate_interval([1.0, 0.5], 100)
        >>> low.round(3), high.round(3)
        (array([0.963, 0.404]), array([1.   , 0.596]))

    Source: Wilson 1927.
    """
    if num < 1:
        raise ValueError(f"num is {num}; give the number of images")
    p = np.asarray(rate, np.float64)
    z = float(special.ndtri((1 + level) / 2))
    middle = p + z * z / (2 * num)
    half = z * np.sqrt(np.maximum(p * (1 - p) / num, 0) + (z / (2 * num)) ** 2)
    scale = 1 + z * z / num
    return (middle - half) / scale, (middle + half) / scale
