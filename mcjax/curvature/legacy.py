"""The published code's estimate of the input Hessian's eigenvalue, to compare with its numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

NUM_SLOTS = 200
TOLERANCE = 1e-2


class LegacyEigenvalue(NamedTuple):
    """What the published code prints.

    Attributes:
        eigenvalue: One number, [].
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

    H_b is the Hessian of the mean loss of a batch with respect to its images: blocks H_x / 200. The
    same v meets every batch, so that slot s of v sees the mean over batches of the s-th images'
    Hessians, and the result tends to the largest of 200 slots' |eigenvalues| of these means / 200:
    neither one image's eigenvalue nor their mean. It mostly stops at the second iteration, at the
    absolute tolerance, far from converged.

    Args:
        key: Key of the start vector.
        gradient_fn: The gradient of each example's loss with respect to its image.
        x: Images, [N, H, W, C]; those that do not fill a batch are left out.
        num_slots: Images a batch; N if that is less.
        max_iters: Iterations at most.
        tolerance: Of the change of the estimate.

    Returns:
        The estimate.

    Source: the code beside Zhao et al. 2020, from HessianFlow (Yao et al. 2018).
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
