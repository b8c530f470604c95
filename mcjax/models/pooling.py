"""Max-pooling with a gradient that is fast on CPU.

XLA's gradient of a windowed maximum (select-and-scatter) is slow on CPU. Where mcjax's C functions
are used, JAX's own rule is as good, because `mcjax.cpu_convolution` computes it. Else, windows that touch but
do not overlap are a reshape of the image: the index of each window's maximum is stored, and the
gradient is one pass that compares with it. For overlapping windows, pixel (a, b) of all windows is a
slice of one of the image's stride x stride phases, and the gradient is a sum over these slices.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mcjax import cpu_convolution


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def max_pool(x: Array, window: int, stride: int) -> Array:
    r"""The maximum over each square window, without padding.

    .. math:: y_{n,p,q,c} = \max_{0 \le a,b < window} x_{n,\,stride\,p+a,\,stride\,q+b,\,c}

    Equal to flax.linen.max_pool: rows and columns that do not fill a window are dropped.
    Where several pixels of a window tie, the first in reading order (row by row) takes the whole
    gradient, as in PyTorch. Works under jit, vmap, grad, jvp and jvp of grad.

    Args:
        x: Images, (batch, height, width, channels).
        window: Height and width of a window, in pixels.
        stride: Distance between windows, in pixels.

    Returns:
        Array, (batch, (height - window) // stride + 1, (width - window) // stride + 1, channels).

    Example:
        >>> x = jnp.array([[1.0, 3.0], [3.0, 2.0]])[None, :, :, None]
        >>> max_pool(x, 2, 2).item()
        3.0
        >>> jax.grad(lambda x: max_pool(x, 2, 2).sum())(x)[0, :, :, 0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    return _largest(x, window, stride)


def _largest(x: Array, window: int, stride: int) -> Array:
    lowest = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    # A constant of NumPy's, so that JAX sees a maximum, which it can differentiate.
    return lax.reduce_window(x, np.array(lowest, x.dtype), lax.max, shape, strides, "VALID")


@max_pool.defjvp
def _max_pool_jvp(
    window: int, stride: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    if cpu_convolution.has_compiled_pools(primals[0].dtype):
        return jax.jvp(partial(_largest, window=window, stride=stride), primals, tangents)
    (x,), (dx,) = primals, tangents
    y = max_pool(x, window, stride)
    if window == stride:
        return y, _taken(x, dx, y, window)
    pixels, pixel_tangents = (_pixels(z, window, stride, y.shape) for z in (x, dx))
    index, dy = _first_maximum(pixels), jnp.zeros(y.shape, dx.dtype)
    for k, tangent in enumerate(pixel_tangents):
        dy = dy + jnp.where(index == k, tangent, 0)
    return y, dy


def _first_maximum(pixels: list[Array]) -> Array:
    """The place of the first maximum among arrays, by element.

    The pixels are compared with each other and not with the maximum that was computed before: XLA may
    compute x twice, with different rounding, and then no pixel would equal it.
    """
    best, index = pixels[0], jnp.zeros(pixels[0].shape, jnp.int32)
    for k, pixel in enumerate(pixels[1:], 1):
        index = jnp.where(pixel > best, k, index)
        best = jnp.maximum(best, pixel)
    return index


def _taken(x: Array, dx: Array, y: Array, size: int) -> Array:
    """The tangent at the first maximum of each window, for windows that do not overlap."""
    n, h, w, c = y.shape
    x, dx = (z[:, : h * size, : w * size].reshape(n, h, size, w, size, c) for z in (x, dx))
    order = jnp.arange(size**2).reshape(1, 1, size, 1, size, 1)
    index = _first_maximum([x[:, :, k // size, :, k % size] for k in range(size**2)])
    return jnp.where(index[:, :, None, :, None] == order, dx, 0).sum((2, 4))


def _pixels(x: Array, window: int, stride: int, shape: tuple[int, ...]) -> list[Array]:
    """The pixels of all windows, in reading order; each array has the output's shape."""
    n, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, -h % stride), (0, -w % stride), (0, 0)))
    x = x.reshape(n, x.shape[1] // stride, stride, x.shape[2] // stride, stride, c)
    phases = [[x[:, :, a, :, b] for b in range(stride)] for a in range(stride)]

    def pixel(a: int, b: int) -> Array:
        p, q = a // stride, b // stride
        phase = phases[a % stride][b % stride]
        return phase[:, p : p + shape[1], q : q + shape[2]]

    return [pixel(a, b) for a in range(window) for b in range(window)]


def max_pool_2x2(x: Array) -> Array:
    """`max_pool` over 2x2 windows at stride 2."""
    return max_pool(x, 2, 2)
