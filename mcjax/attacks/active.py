"""Applies a function only to the examples that still need it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

SMALLEST_BLOCK = 32  # smaller convolutions are not worth a separate call
BLOCKS = 8


def of_active(
    fn: Callable[..., Any], active: jax.Array, *arrays: jax.Array, block: int | None = None
) -> Any:
    """Applies fn to the active examples, block by block; returns zeros for the others.

    Args:
        fn: A function of arrays [b, ...] for any b that returns a tree of arrays [b, ...]; an
            example's result must not depend on other examples.
        active: The examples to process, bool [B].
        *arrays: Arguments of fn, each [B, ...].
        block: Examples per call. Default: B / 8, but at least 32.

    Returns:
        The results of fn, [B, ...], zero where active is False. If B is at most one block, fn is
        applied to all examples.

    Example:
        >>> of_active(lambda x: 2 * x, jnp.array([True, False, True]), jnp.arange(1, 4), block=2)
        Array([2, 0, 6], dtype=int32)
    """
    size = len(active)
    block = block or max(SMALLEST_BLOCK, -(-size // BLOCKS))
    if size <= block:
        return fn(*arrays)
    # Active examples first. The last block is padded with inactive examples or with an example that
    # is processed twice, with the same result.
    arrays = tuple(map(jnp.asarray, arrays))  # indexed by tracers below
    order = jnp.argsort(~active, stable=True)
    order = jnp.pad(order, (0, -size % block), mode="edge")

    def work(i: jax.Array, found: Any) -> Any:
        rows = lax.dynamic_slice_in_dim(order, i * block, block)
        values = fn(*(a[rows] for a in arrays))
        keep = active[rows]

        def put(all_values: jax.Array, some: jax.Array) -> jax.Array:
            kept = jnp.where(keep.reshape(-1, *[1] * (some.ndim - 1)), some, 0)
            return all_values.at[rows].set(kept.astype(some.dtype))

        return jax.tree.map(put, found, values)

    shapes = jax.eval_shape(fn, *(a[:block] for a in arrays))
    zeros = jax.tree.map(lambda s: jnp.zeros((size, *s.shape[1:]), s.dtype), shapes)
    return lax.fori_loop(0, -(-active.sum() // block), work, zeros)
