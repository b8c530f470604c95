"""Direct convolutions: direct.c's functions inside XLA programs.

A tile of output pixels and channels stays in the processor's registers while all taps are added to it,
where a matrix product of patches would write every pixel kh * kw times. Any stride, padding and number
of groups; dilated taps only where each channel is a group. `mcjax.cpu_convolution.build` compiles and
registers the functions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mcjax.cpu_convolution.blocked import Pads, Pair, output_size

PLAIN = (1, 1)


def depthwise(channels: Pair, groups: int) -> bool:
    """Whether each channel is a group: groups input and groups output channels."""
    return groups > 1 and tuple(channels) == (groups, groups)


def forward(
    x: Array, w: Array, *, stride: Pair, padding: Pads, groups: int = 1, dilation: Pair = PLAIN
) -> Array:
    """y[n, p, q, o] = sum over a, b, i of x[n, p*s + a*d, q*s + b*d, i] w[a, b, i, o]."""
    size = output_size(x.shape[1:3], w.shape[:2], padding=padding, stride=stride, dilation=dilation)
    shape = (x.shape[0], *size, w.shape[3])
    window = _window(w.shape[:2], stride, padding, groups, dilation)
    return _call("mcjax_convolution", shape, x, w, window)


def weight_gradient(
    x: Array,
    g: Array,
    *,
    taps: Pair,
    stride: Pair,
    padding: Pads,
    groups: int = 1,
    dilation: Pair = PLAIN,
) -> Array:
    """dw[a, b, i, o] = sum over n, p, q of x[n, p*s + a*d, q*s + b*d, i] g[n, p, q, o]."""
    shape = (*taps, x.shape[3] // groups, g.shape[3])
    window = _window(taps, stride, padding, groups, dilation)
    return _call("mcjax_weight_gradient", shape, x, g, window)


def _window(taps: Pair, stride: Pair, padding: Pads, groups: int, dilation: Pair) -> np.ndarray:
    lows = [low for low, _ in padding]
    return np.array([*taps, *stride, *lows, groups, *dilation], np.int64)


def _call(name: str, shape: Pair, x: Array, y: Array, window: np.ndarray) -> Array:
    # Under shard_map the result varies over the mesh axes that the operands vary over.
    out = jax.eval_shape(lambda x, y: jnp.broadcast_to(x.sum() + y.sum(), shape), x, y)
    return jax.ffi.ffi_call(name, out)(x, y, window=window)
