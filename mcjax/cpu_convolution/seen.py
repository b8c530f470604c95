"""The taps that see pixels.

Deep in a network images are smaller than the taps reach: on one padded pixel a single one of 3x3 taps
sees it, and the other eight only meet zeros, in the forward pass and in both gradients.
"""

import jax.numpy as jnp
from jax import Array, lax

from mcjax.cpu_convolution.blocked import Pads, Pair


def of(size: Pair, taps: Pair, out: Pair, *, stride: Pair, padding: Pads) -> tuple[Pads, Pads]:
    """The taps to cut at both ends of each axis, and the padding of the convolution that is left.

    Tap a of output pixel p sees input pixel p * s + a - low. At least one tap stays.

    Args:
        size: Pixels of the images.
        taps: Of the window.
        out: Pixels of the output.
        stride: s.
        padding: (low, high) per axis.

    Example:
        >>> of((1, 4), (3, 3), (1, 4), stride=(1, 1), padding=((1, 1), (1, 1)))
        ([(1, 1), (0, 0)], [(0, 0), (1, 1)])
    """
    cut, left = [], []
    for n, k, m, s, (low, _) in zip(size, taps, out, stride, padding, strict=True):
        first = min(max(0, low - (m - 1) * s), k - 1)
        stop = max(min(k, n + low), first + 1)
        cut.append((first, k - stop))
        left.append((low - first, (m - 1) * s + stop - low - n))
    return cut, left


def only(w: Array, cut: Pads) -> Array:
    """The weights (kh, kw, i, o) without the taps that are cut."""
    (a, b), (c, d) = cut
    return w[a : w.shape[0] - b, c : w.shape[1] - d]


def with_zeros(dw: Array, cut: Pads) -> Array:
    """The gradient of all taps: zero for those that were cut."""
    edges = [(*ends, 0) for ends in cut]
    return lax.pad(dw, jnp.zeros((), dw.dtype), [*edges, (0, 0, 0), (0, 0, 0)])
