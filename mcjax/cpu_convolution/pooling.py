"""Max-pooling and its derivatives by pool.c, in place of XLA's.

JAX differentiates and batches `lax.reduce_window` itself; these are the rules by which the three
operations that result are lowered: the maximum, its tangent, and its gradient.
"""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.interpreters import mlir

from mcjax.cpu_convolution import build, direct, hook
from mcjax.cpu_convolution.rule import partitioned

DTYPES = (jnp.float32, jnp.bfloat16)
"""What is pooled here."""

NAMES = {
    lax.reduce_window_max_p: "mcjax_max_pool",
    lax.select_and_gather_add_p: "mcjax_max_pool_taken",
    lax.select_and_scatter_add_p: "mcjax_max_pool_spread",
}


def rule(primitive: Any) -> Any:
    """The lowering rule of one of `hook.POOLS`."""

    def lower(ctx: mlir.LoweringRuleContext, *operands: Any, **params: Any) -> Any:
        fn = recognise(primitive, *ctx.avals_in, **params)
        if fn is None or partitioned(ctx) or not build.load():
            return hook.ORIGINAL[primitive](ctx, *operands, **params)
        return mlir.lower_fun(fn, multiple_results=False)(ctx, *operands)

    return lower


def recognise(primitive: Any, *operands: Any, **params: Any) -> Any:
    """The function to lower instead, or None to leave it to the original rule.

    Taken are windows over two neighbouring axes, or one, with channels behind them.

    Args:
        primitive: One of `hook.POOLS`.
        *operands: Their shapes and types.
        **params: The primitive's.
    """
    window, strides = params["window_dimensions"], params["window_strides"]
    padding, plain = params["padding"], (1,) * len(window)
    axes = [i for i, n in enumerate(window) if (n, strides[i], *padding[i]) != (1, 1, 0, 0)]
    if not (
        operands[0].dtype in DTYPES
        and params.get("select_prim", lax.ge_p) is lax.ge_p
        and params.get("base_dilation", plain) == params.get("window_dilation", plain) == plain
        and all(isinstance(n, int) and n > 0 for one in operands for n in one.shape)
        and min(min(pair) for pair in padding) >= 0
        and len(window) > 2
        and axes
        and axes[-1] - axes[0] <= 1
        and axes[-1] < len(window) - 1
    ):
        return None
    first = min(axes[0], len(window) - 3)  # the height's axis
    return partial(
        _pool,
        name=NAMES[primitive],
        first=first,
        window=(*window[first : first + 2], *strides[first : first + 2]),
        padding=padding,
    )


def _pool(*operands: Array, name: str, first: int, window: Any, padding: Any) -> Array:
    """Pads the image, and takes the axes before the height together, and those behind the width.

    Args:
        *operands: As of the primitive.
        name: The C function.
        first: The axis of the height.
        window: Height and width of a window, and their strides.
        padding: Per axis.
    """
    dtype = operands[0].dtype
    operands = tuple(z.astype(jnp.float32) for z in operands)  # exact, but for sums
    gradient = name == NAMES[lax.select_and_scatter_add_p]
    *others, x = operands
    widths = [(low, high, 0) for low, high in padding]
    whole = lax.pad(x, jnp.float32(-jnp.inf), widths)
    if not gradient:
        others = [lax.pad(t, jnp.float32(0), widths) for t in others]
    height, width = (
        (n - k) // step + 1
        for n, k, step in zip(whole.shape[first:], window[:2], window[2:], strict=False)
    )
    shape = whole.shape if gradient else (*x.shape[:first], height, width, *x.shape[first + 2 :])
    flat = [_flat(z, first) for z in (whole, *others)]
    given = np.array(window, np.int64)
    y = direct.call(name, _flat_shape(shape, first), *flat, window=given).reshape(shape)
    if gradient:  # of the pixels alone
        y = lax.slice(
            y,
            [low for low, _ in padding],
            [low + n for (low, _), n in zip(padding, x.shape, strict=True)],
        )
    return y.astype(dtype)


def _flat_shape(shape: tuple[int, ...], first: int) -> tuple[int, ...]:
    return math.prod(shape[:first]), *shape[first : first + 2], math.prod(shape[first + 2 :])


def _flat(x: Array, first: int) -> Array:
    """[n, height, width, channels]."""
    return x.reshape(_flat_shape(x.shape, first))
