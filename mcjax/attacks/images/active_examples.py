"""Work on the examples that still need it: the others cost nothing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

SMALLEST_BLOCK = 32  # below, a convolution's products are too short to be worth a call
BLOCKS = 8


def of_active(
    fn: Callable[..., Any], active: jax.Array, *arrays: jax.Array, block: int | None = None
) -> Any:
    """Applies fn to the active examples, block by block; zeros for the others.

    Args:
        fn: A function of examples, arrays [b, ...] for any b, that returns a tree of arrays
            [b, ...], an example's numbers not depending on the others'.
        active: The examples to work on, bool [B].
        *arrays: What fn takes, each [B, ...].
        block: Examples at a time; an eighth of B unless given, but at least 32.

    Returns:
        What fn returns, [B, ...], with zeros where active is False; where B is no more than one
        block, fn of all.

    Example:
        >>> of_active(lambda x: 2 * x, jnp.array([True, False, True]), jnp.arange(1, 4), block=2)
        Array([2, 0, 6], dtype=int32)
    """
    size = len(active)
    block = block or max(SMALLEST_BLOCK, -(-size // BLOCKS))
    if size <= block:
        return fn(*arrays)
    # Active ones first; the last block is filled up with inactive examples, or with one that
    # is worked on twice, which gets the same numbers twice.
    arrays = tuple(map(jnp.asarray, arrays))  # indexed by traced rows below
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
