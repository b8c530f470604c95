"""The published code's estimate of the input Hessian's eigenvalue, for comparison only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

NUM_SLOTS = 200
TOLERANCE = 1e-2


class LegacyEigenvalue(NamedTuple):
    """The published code's result.

    Attributes:
        eigenvalue: A scalar, [].
        num_iters: Iterations until two estimates were within 0.01 of each other.
    """

    eigenvalue: jax.Array
    num_iters: jax.Array


def legacy_eigenvalue(
    key: jax.Array,
    gradient_fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    *,
    num_slots: int = NUM_SLOTS,
    max_iters: int = 10,
    tolerance: float = TOLERANCE,
) -> LegacyEigenvalue:
    """The published estimate: v . (sum_b H_b v) / num_batches, by power iteration on sum_b H_b.

    H_b is the Hessian of a batch's mean loss with respect to its images: blocks H_x / 200. The same v
    is used for every batch, so slot s of v sees the mean over batches of the s-th images' Hessians.
    The result tends to the largest |eigenvalue| of these 200 means / 200, which is neither an image's
    eigenvalue nor a mean of them. It usually stops at the second iteration because of the absolute
    tolerance, far from convergence.

    Args:
        key: Key of the start vector.
        gradient_fn: The gradient of each example's loss with respect to its image.
        x: Images, [N, H, W, C]; an incomplete last batch is dropped.
        num_slots: Images per batch; N if that is less.
        max_iters: Maximum number of iterations.
        tolerance: Absolute tolerance on the change of the estimate.

    Returns:
        The estimate.

    Source: the code of Zhao et al. 2020, from HessianFlow (Yao et al. 2018).
    """
    num_slots = min(num_slots, len(x))
    num_batches = len(x) // num_slots
    _, hvp = jax.linearize(gradient_fn, x)
    v = jax.random.normal(key, (num_slots, *x.shape[1:]), x.dtype)

    def unit(v: jax.Array) -> jax.Array:
        return v / (jnp.sqrt((v**2).sum()) + 1e-6)

    def step(state: tuple[jax.Array, ...]) -> Any:
        i, v, estimate, _ = state
        copies = jnp.concatenate([v] * num_batches + [jnp.zeros_like(x[num_batches * num_slots :])])
        product = hvp(copies)[: num_batches * num_slots] / num_slots
        total = product.reshape(num_batches, *v.shape).sum(0)
        return i + 1, unit(total), (total * v).sum() / num_batches, estimate

    def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
        i, _, estimate, before = state
        return (i < max_iters) & ((i < 2) | (jnp.abs(estimate - before) >= tolerance))

    zero = jnp.zeros((), x.dtype)
    i, _, estimate, _ = lax.while_loop(unfinished, step, (jnp.asarray(0), unit(v), zero, zero))
    return LegacyEigenvalue(estimate, i)
