"""Max-pooling over 2x2 windows, with a gradient that is fast on CPU.

XLA's gradient of a windowed maximum (select-and-scatter) is slow on CPU. Windows that do not
overlap need none of it: the four pixels of a window are four strided slices.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


def max_pool_2x2(x: Array) -> Array:
    r"""The maximum over each 2x2 window, at stride 2.

    .. math:: y_{n,p,q,c} = \max_{a,b \in \{0,1\}} x_{n,\,2p+a,\,2q+b,\,c}

    The values are those of ``flax.linen.max_pool(x, (2, 2), strides=(2, 2))``: an odd last row or
    column is dropped. Where several pixels of a window tie, the first in reading order (row by row)
    takes the whole gradient, as in PyTorch. Works under jit, vmap, grad, jvp and jvp of grad.

    Args:
        x: Images (..., height, width, channels).

    Returns:
        Array (..., height // 2, width // 2, channels).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from mcjax.pooling import max_pool_2x2
        >>> x = jnp.array([[1.0, 3.0], [3.0, 2.0]])[None, :, :, None]
        >>> max_pool_2x2(x).item()
        3.0
        >>> jax.grad(lambda x: max_pool_2x2(x).sum())(x)[0, :, :, 0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    return _pool(x)


@jax.custom_jvp
def _pool(x: Array) -> Array:
    window = (1,) * (x.ndim - 3) + (2, 2, 1)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    return lax.reduce_window(x, jnp.array(lowest, x.dtype), lax.max, window, window, "VALID")


@_pool.defjvp
def _pool_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y = _pool(x)
    taken, dy = jnp.zeros(y.shape, bool), jnp.zeros(y.shape, dx.dtype)
    for pixel, tangent in zip(_pixels(x), _pixels(dx), strict=True):
        first = (pixel == y) & ~taken
        taken = taken | first
        dy = dy + jnp.where(first, tangent, 0)
    return y, dy


def _pixels(x: Array) -> list[Array]:
    """The four pixels of every window, in reading order."""
    h, w = x.shape[-3] // 2, x.shape[-2] // 2
    x = x[..., : 2 * h, : 2 * w, :].reshape(*x.shape[:-3], h, 2, w, 2, x.shape[-1])
    return [x[..., a, :, b, :] for a in range(2) for b in range(2)]
