"""Convolutions with few pixels or channels, rewritten with a larger matrix product.

A matrix product is slow if one of its sides is short. Two exact rewritings make it longer:

* dense: an image of a few pixels is flattened to a vector, and the convolution is a matrix without
  the taps that fall on padding (2x2 pixels, 3x3 taps: 16 of 36 remain);
* wide: t neighbouring columns become channels, 3 channels become 3t, and the weights a band matrix.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from mcjax.cpu_convolution.blocked import Pads, Pair, output_size, pad


def dense(x: Array, w: Array, *, stride: Pair, padding: Pads) -> Array:
    """y[n, p, q, o] as one product of (batch, h*w*i) with (h*w*i, h'*w'*o)."""
    (kh, kw, i, o), (n, *size, _) = w.shape, x.shape
    out = output_size(size, (kh, kw), padding=padding, stride=stride)

    def seen(p: int, q: int) -> Array:
        """The weights (h, w, i, o) of the image's pixels for output pixel p, q."""
        low = [t * s - lo for t, s, (lo, _) in zip((p, q), stride, padding, strict=True)]
        around = [(a, m - k - a) for a, m, k in zip(low, size, (kh, kw), strict=True)]
        return pad(w.reshape(1, kh, kw, i * o), around).reshape(-1, o)

    columns = [seen(p, q) for p in range(out[0]) for q in range(out[1])]
    return (x.reshape(n, -1) @ jnp.concatenate(columns, -1)).reshape(n, *out, o)


def band(w: Array, t: int) -> Array:
    """The weights (kh, strips, t*i, t*o) of w (kh, kw, i, o) between strips of t columns."""
    kh, kw, i, o = w.shape
    strips = -(-(t + kw - 1) // t)
    after = strips * t - kw
    columns = [jnp.pad(w, ((0, 0), (j, after - j), (0, 0), (0, 0))) for j in range(t)]
    return jnp.stack(columns, 3).reshape(kh, strips, t * i, t * o)


def wide(
    x: Array, w: Array, *, padding: Pads, t: int, product: Callable[[Array, Array], Array]
) -> Array:
    """Convolves strips of t columns at stride 1 by `product`, a convolution without padding."""
    o, columns = w.shape[-1], x.shape[2] + sum(padding[1]) - w.shape[1] + 1
    y = product(_strips(x, padding, t, w.shape[1], columns), band(w, t))
    return y.reshape(*y.shape[:2], -1, o)[:, :, :columns]


def wide_weight_gradient(
    x: Array,
    g: Array,
    *,
    taps: Pair,
    padding: Pads,
    t: int,
    product: Callable[[Array, Array], Array],
) -> Array:
    """The gradient of the weights: that of the band matrix, summed along its diagonals."""
    i, (n, h, columns, o) = x.shape[-1], g.shape
    g = pad(g, [(0, 0), (0, -columns % t)]).reshape(n, h, -1, t * o)
    dw = product(_strips(x, padding, t, taps[1], columns), g)
    # Column j of a strip of outputs sees the taps from column j of the strips of inputs on.
    dw = dw.reshape(taps[0], -1, i, t, o)
    return sum((dw[:, j : j + taps[1], :, j] for j in range(1, t)), dw[:, : taps[1], :, 0])


def _strips(x: Array, padding: Pads, t: int, kw: int, columns: int) -> Array:
    """Pads x and joins t columns: (batch, h, strips, t*i)."""
    strips = -(-columns // t) + -(-(t + kw - 1) // t) - 1
    low = padding[1][0]
    x = pad(x, [padding[0], (low, strips * t - x.shape[2] - low)])
    return x.reshape(*x.shape[:2], strips, -1)
