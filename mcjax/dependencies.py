"""Finds which inputs each output of a function depends on, from its jaxpr."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend

from mcjax.jaxprs import inside

Inputs = frozenset[int]


def dependencies(fn: Callable[..., Any], *args: Any) -> list[Inputs]:
    """Finds the inputs that each output depends on, without running the function.

    The result may list too many inputs (for branches and `while` loops), never too few.

    Args:
        fn: The function.
        *args: Its arguments; only shapes and dtypes are used.

    Returns:
        For each leaf of the output, the indices of the leaves of `args` that it depends on.

    Example:
        >>> dependencies(lambda x, y: (x + 1, x * y, 3.0), 1.0, 2.0)
        [frozenset({0}), frozenset({0, 1}), frozenset()]
    """
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(jax.numpy.shape(a), jax.numpy.result_type(a)), args
    )
    jaxpr = jax.make_jaxpr(fn)(*shapes).jaxpr
    return _through(jaxpr, [frozenset({i}) for i in range(len(jaxpr.invars))])


def _through(jaxpr: jax.extend.core.Jaxpr, inputs: Sequence[Inputs]) -> list[Inputs]:
    known: dict[Any, Inputs] = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(v: Any) -> Inputs:
        return frozenset() if isinstance(v, jax.extend.core.Literal) else known.get(v, frozenset())

    for equation in jaxpr.eqns:
        given = [of(v) for v in equation.invars]
        inner = list(inside(equation))
        same = len(inner) == 1 and len(inner[0].invars) == len(given)
        if equation.primitive.name == "scan":
            found = _through_scan(inner[0], given, equation)
        elif same and equation.primitive.name != "while":
            found = _through(inner[0], given)
        else:
            found = [frozenset().union(*given)] * len(equation.outvars)
        known.update(zip(equation.outvars, found, strict=True))
    return [of(v) for v in jaxpr.outvars]


def _through_scan(body: jax.extend.core.Jaxpr, given: list[Inputs], equation: Any) -> list[Inputs]:
    # Scanned inputs and stacked outputs have one axis less inside the body; carried values do not.
    def num_split(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        return sum(v.aval.ndim > w.aval.ndim for v, w in zip(outside, inside, strict=True))

    num_carried = len(body.outvars) - num_split(equation.outvars, body.outvars)
    last = len(given) - num_split(equation.invars, body.invars)
    first = last - num_carried
    while True:  # terminates: the sets only grow
        found = _through(body, given)
        carried = [a | b for a, b in zip(given[first:last], found, strict=False)]
        if carried == given[first:last]:
            return found
        given = [*given[:first], *carried, *given[last:]]
