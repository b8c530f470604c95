"""Direct convolutions: direct.c's functions inside XLA programs.

A tile of output pixels and channels stays in the processor's registers while all taps are added to it,
where a matrix product of patches would write every pixel kh * kw times. Any stride, padding and number
of groups. `mcjax.cpu_convolution.build` compiles and registers the functions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mcjax.cpu_convolution.blocked import Pads, Pair


def forward(x: Array, w: Array, *, stride: Pair, padding: Pads, groups: int = 1) -> Array:
    """y[n, p, q, o] = sum over a, b, i of x[n, p*s + a, q*s + b, i] w[a, b, i, o]."""
    size = [
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(x.shape[1:3], padding, w.shape[:2], stride, strict=True)
    ]
    shape = (x.shape[0], *size, w.shape[3])
    return _call("mcjax_convolution", shape, x, w, w.shape[:2], stride, padding, groups)


def weight_gradient(
    x: Array, g: Array, *, taps: Pair, stride: Pair, padding: Pads, groups: int = 1
) -> Array:
    """dw[a, b, i, o] = sum over n, p, q of x[n, p*s + a, q*s + b, i] g[n, p, q, o]."""
    shape = (*taps, x.shape[3] // groups, g.shape[3])
    return _call("mcjax_weight_gradient", shape, x, g, taps, stride, padding, groups)


def _call(
    name: str, shape: Pair, x: Array, y: Array, taps: Pair, stride: Pair, padding: Pads, groups: int
) -> Array:
    # Under shard_map the result varies over the mesh axes that the operands vary over.
    out = jax.eval_shape(lambda x, y: jnp.broadcast_to(x.sum() + y.sum(), shape), x, y)
    window = np.array([*taps, *stride, padding[0][0], padding[1][0], groups], np.int64)
    return jax.ffi.ffi_call(name, out)(x, y, window=window)
