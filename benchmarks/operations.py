"""Multiplications and additions of a network, counted from its own program, and the limit."""

import math
import time
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

from benchmarks import inputs


def forward_operations(name: str, batch_size: int) -> float:
    """Floating-point operations of a forward pass by the direct method, 2 a multiply-add.

    Counted from the jaxpr's convolutions and matrix products, so a method that needs fewer
    multiplications shows as more effective operations a second.

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
    return _count(jax.make_jaxpr(net.apply)(variables, x).jaxpr)


def _count(jaxpr: jax.extend.core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += _count(inner)
        out: Any = equation.outvars[0].aval
        operands: list[Any] = [v.aval for v in equation.invars]
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            shape = operands[0].shape
            total += 2 * out.size * math.prod(shape[i] for i in contracted)
        if equation.primitive.name == "conv_general_dilated":
            kernel = operands[1]
            features = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * out.size * kernel.size / kernel.shape[features]
    return total


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
