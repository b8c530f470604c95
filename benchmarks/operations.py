"""Multiplications and additions of a network, counted from its own program, and the limit."""

import time

import jax
import jax.numpy as jnp

from benchmarks import inputs
from mcjax.core.operation_counts import count


def forward_operations(name: str, batch_size: int) -> float:
    """Floating-point operations of a forward pass by the direct method, 2 a multiply-add.

    Args:
        name: A network of `inputs.NETWORKS`.
        batch_size: Images.

    Returns:
        Operations.

    Example:
        >>> round(forward_operations("vgg16", 1) / 1e6)
        627
    """
    net = inputs.network(name)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((batch_size, *inputs.IMAGE_SHAPE), jnp.float32)
    return count(net.apply, variables, x).operations


def matrix_product_limit(size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of a large float32 matrix product in JAX, the best of some repeats."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
