"""Access to the jaxprs inside an equation, for all supported versions of JAX."""

from collections.abc import Iterator

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def inside(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """Yields the jaxprs in an equation's parameters: the body of a loop, the branches of a `cond`.

    Args:
        equation: An equation of a jaxpr.

    Yields:
        Each jaxpr, in the order of the parameters.

    Example:
        >>> import jax
        >>> loop = lambda x: jax.lax.fori_loop(0, 3, lambda i, x: 2 * x, x)
        >>> (equation,) = jax.make_jaxpr(loop)(1.0).eqns
        >>> [len(list(inside(equation))) > 0, equation.primitive.name]
        [True, 'scan']
    """
    # jax.extend.core.jaxprs_in_params does this too, but only since JAX 0.10.
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
