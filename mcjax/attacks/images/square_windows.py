"""The windows of Square: their sizes by query, and the bumps that its l2 and l1 steps add."""

import math

import numpy as np

SHARE = 0.8  # p, of the image that the first window covers
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries
GRID = 5  # tiles per side of the first l2 and l1 perturbation


def covered_share(query: int) -> float:
    """p, the part of the image that a window covers.

    Args:
        query: Number of queries before this one, from 0.

    Example:
        >>> [covered_share(i) for i in (0, 10, 11, 51, 201)]
        [0.8, 0.8, 0.4, 0.2, 0.1]

    Source: Andriushchenko et al. 2020, section 3.1, with 500 added as in AutoAttack.
    """
    return SHARE / 2 ** sum(query > limit for limit in HALVED_AFTER)


def window_sizes(num_queries: int, height: int, width: int, norm: str) -> np.ndarray:
    """The side of the square window of each query, in pixels.

    sqrt(p H W), rounded; in l2 and l1 odd and at least 3. At most the image's shorter side.

    Args:
        num_queries: Number of queries.
        height: H.
        width: W.
        norm: "linf", "l2" or "l1".

    Returns:
        Integers, [num_queries].

    Example:
        >>> window_sizes(52, 28, 28, "linf")[[0, 11, 51]].tolist()
        [25, 18, 13]

    Source: Andriushchenko et al. 2020, section 3.1.
    """
    shorter = min(height, width)

    def size(query: int) -> int:  # pixels
        s = round(math.sqrt(covered_share(query) * height * width))
        if norm == "linf":
            return min(max(s, 1), shorter)
        return min(max(s, 3) | 1, shorter if shorter % 2 else shorter - 1) if shorter > 1 else 1

    return np.array([size(i) for i in range(num_queries)], np.int32)


def bump(size: int, order: int) -> np.ndarray:
    """Two peaks of opposite sign side by side, of unit norm.

    In a rectangle of h1 x h2 pixels, with n = floor(h1 / 2),

        eta[r, s] = sum_{k=0}^{M} 1 / (n + 1 - k)^2,  M = n - max(|r - n|, |s - floor(h2 / 2)|).

    The left floor(size / 2) columns are that rectangle, the others its negative.

    Args:
        size: Side of the square, in pixels.
        order: 1 or 2, of the norm.

    Returns:
        [size, size].

    Example:
        >>> bump(3, 2).round(2)[1]
        array([ 0.66, -0.13, -0.66])

    Source: Andriushchenko et al. 2020, equation 2 and section 3.3.
    """
    left = size // 2
    both = np.concatenate([_peak(size, left), -_peak(size, size - left)], 1)
    return both / (np.abs(both) ** order).sum() ** (1 / order)


def _peak(height: int, width: int) -> np.ndarray:
    n = height // 2
    rows, columns = np.mgrid[:height, :width]
    m = n - np.maximum(abs(rows - n), abs(columns - width // 2))
    terms = 1.0 / (n + 1 - np.arange(n + 1)) ** 2
    return np.where(m >= 0, np.cumsum(terms)[m.clip(0)], 0)


def tiles(height: int, width: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """The bumps of the first l2 and l1 perturbation, on a grid.

    Args:
        height: H.
        width: W.
        order: 1 or 2, of the norm.

    Returns:
        The bumps, [H, W], and the number of the tile that each pixel lies in, [H, W]; pixels outside
        all tiles have a bump of 0.

    Source: Andriushchenko et al. 2020, section 3.3.
    """
    side = max(1, min(height, width) // GRID)
    pattern, tile = np.zeros((height, width)), np.zeros((height, width), np.int32)
    rows, columns = height // side, width // side
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    one = bump(side, order)
    for i in range(rows):
        for j in range(columns):
            place = np.s_[
                top + i * side : top + (i + 1) * side, left + j * side : left + (j + 1) * side
            ]
            pattern[place], tile[place] = one, i * columns + j
    return pattern, tile
