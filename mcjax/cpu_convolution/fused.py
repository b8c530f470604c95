"""Winograd's convolutions F(m x m, r x r), fused: winograd.c's functions inside XLA programs.

A block of tiles is transformed, multiplied and transformed back within the processor's cache, where
`mcjax.cpu_convolution.winograd` writes every step to memory. At 3x3 taps a tile of 4x4 outputs takes 36
products in place of 144, at 5x5 one of 2x2 takes 36 in place of 100.
"""

import numpy as np
from jax import Array

from mcjax.cpu_convolution import build, winograd
from mcjax.cpu_convolution.blocked import Pads, Pair, output_size
from mcjax.cpu_convolution.direct import call


def fits(taps: Pair, channels: Pair, *, stride: Pair, groups: int = 1) -> bool:
    """Whether there is such a form, and the channels of a group are whole vectors.

    Args:
        taps: Of the weights (kh, kw).
        channels: Of images and outputs, of all groups.
        stride: Of the convolution.
        groups: Of channels.
    """
    lanes = build.lanes()
    return (
        lanes > 0
        and taps[0] == taps[1]
        and taps[0] in {r for _, r in winograd.FORMS}
        and tuple(stride) == (1, 1)
        and all(n % (groups * lanes) == 0 for n in channels)
    )


def tile(size: Pair, r: int) -> int:
    """The m of F(m x m, r x r) that takes the fewest products for outputs of `size` pixels.

    Example:
        >>> [tile(size, 3) for size in ((32, 32), (4, 4), (2, 2), (5, 5))]
        [4, 4, 2, 2]
    """

    def products(m: int) -> int:
        return -(-size[0] // m) * -(-size[1] // m) * (m + r - 1) ** 2

    return min((m for m, taps in winograd.FORMS if taps == r), key=lambda m: (products(m), m))


def forward(
    x: Array, w: Array, *, padding: Pads, groups: int = 1, tile_size: int | None = None
) -> Array:
    """The convolution of x (batch, h, w, groups * i) with w (r, r, i, groups * o) at stride 1, in float32."""
    r = w.shape[0]
    size = output_size(x.shape[1:3], (r, r), padding=padding)
    window = _window(r, padding, groups, tile_size or tile(size, r))
    return call("mcjax_winograd", (x.shape[0], *size, w.shape[3]), x, w, window=window)


def weight_gradient(
    x: Array,
    g: Array,
    *,
    taps: int,
    padding: Pads,
    groups: int = 1,
    tile_size: int | None = None,
) -> Array:
    """The gradient (r, r, i, groups * o) of that convolution's weights, given the output's g."""
    window = _window(taps, padding, groups, tile_size or tile(g.shape[1:3], taps))
    shape = (taps, taps, x.shape[3] // groups, g.shape[3])
    return call("mcjax_winograd_gradient", shape, x, g, window=window)


def _window(r: int, padding: Pads, groups: int, m: int) -> np.ndarray:
    lows = [low for low, _ in padding]
    return np.array([r, r, 1, 1, *lows, groups, 1, 1, m], np.int64)
