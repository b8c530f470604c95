"""Counts the operations of a function from its jaxpr."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend

from mcjax.jaxprs import inside


class Count(NamedTuple):
    """Work of convolutions and matrix products, which dominate the cost of a network.

    Attributes:
        operations: Multiplications and additions of the direct method.
        outputs: Number of output values of these layers.
    """

    operations: float
    outputs: float


def count(fn: Callable[..., Any], *args: Any) -> Count:
    """Counts the operations of a function's convolutions and matrix products, including in loops.

    A convolution with output y and kernel [.., i, o] takes 2 |y| |kernel| / o operations, a matrix
    product with a contracted size of n takes 2 |y| n. Faster algorithms with fewer multiplications
    thus show more effective operations per second. The body of a `while` loop counts once, because
    its number of iterations is unknown.

    Args:
        fn: The function.
        *args: Its arguments, arrays or `jax.ShapeDtypeStruct`s; nothing is computed.

    Returns:
        The count.

    Example:
        >>> a = jax.ShapeDtypeStruct((2, 3), "float32"), jax.ShapeDtypeStruct((3, 5), "float32")
        >>> count(lambda x, w: x @ w, *a)
        Count(operations=60.0, outputs=10.0)
        >>> count(lambda x, w: jax.lax.map(lambda row: row @ w, x), *a)
        Count(operations=60.0, outputs=10.0)
    """
    return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: jax.extend.core.Jaxpr) -> Count:
    operations = outputs = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        times = params["length"] if name == "scan" else 1
        for inner in inside(equation):
            found = _count(inner)
            operations += times * found.operations
            outputs += times * found.outputs
        out: Any = equation.outvars[0].aval
        operands: list[Any] = [v.aval for v in equation.invars]
        if name == "dot_general":
            ((contracted, _), _) = params["dimension_numbers"]
            operations += 2 * out.size * math.prod(operands[0].shape[i] for i in contracted)
            outputs += out.size
        if name == "conv_general_dilated":
            kernel = operands[1]
            features = params["dimension_numbers"].rhs_spec[0]
            operations += 2 * out.size * kernel.size / kernel.shape[features]
            outputs += out.size
    return Count(operations, outputs)
