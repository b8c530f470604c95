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

from mcjax.cpu_convolution import build
from mcjax.cpu_convolution.blocked import Pads, Pair, output_size

PLAIN = (1, 1)


def depthwise(channels: Pair, groups: int) -> bool:
    """Whether each channel is a group: groups input and groups output channels."""
    return groups > 1 and tuple(channels) == (groups, groups)


def sums_pairs(channels: int, groups: int) -> bool:
    """Whether `forward` takes bfloat16, with float32 sums, for so many input channels and groups."""
    return groups == 1 and channels % 2 == 0 and build.sums_pairs()


def forward(
    x: Array, w: Array, *, stride: Pair, padding: Pads, groups: int = 1, dilation: Pair = PLAIN
) -> Array:
    """y[n, p, q, o] = sum over a, b, i of x[n, p*s + a*d, q*s + b*d, i] w[a, b, i, o].

    In float32, or of bfloat16 where `sums_pairs` says so; y is float32.
    """
    size = output_size(x.shape[1:3], w.shape[:2], padding=padding, stride=stride, dilation=dilation)
    shape = (x.shape[0], *size, w.shape[3])
    window = _window(w.shape[:2], stride, padding, groups, dilation)
    return call("mcjax_convolution", shape, x, w, window=window)


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
    return call("mcjax_weight_gradient", shape, x, g, window=window)


def _window(taps: Pair, stride: Pair, padding: Pads, groups: int, dilation: Pair) -> np.ndarray:
    lows = [low for low, _ in padding]
    return np.array([*taps, *stride, *lows, groups, *dilation], np.int64)


def call(name: str, shape: Pair, *operands: Array, window: np.ndarray) -> Array:
    """Calls a C function: operands, one float32 result of a shape, integers that say the window."""
    # Under shard_map the result varies over the mesh axes that the operands vary over.
    out = jax.eval_shape(
        lambda *z: jnp.broadcast_to(sum(one.astype(jnp.float32).sum() for one in z), shape),
        *operands,
    )
    return jax.ffi.ffi_call(name, out)(*operands, window=window)
