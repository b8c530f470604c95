"""PyTorch's operators (ATen) as JAX functions, by name.

An operator is a short function of arrays with PyTorch's argument names, in the file of its kind, and
a line in that file's table. The wrapper in the table (`kinds`) says in which order of axes it takes
its arrays. `relu_`, which changes its argument, is `relu` here; the interpreter does the rest.
"""

from mcjax.interop.exported.operators import (
    convolution,
    creation,
    elementwise,
    normalisation,
    pooling,
    products,
    reductions,
    regularisation,
    resampling,
    shapes,
    symbols,
    types,
)
from mcjax.interop.exported.operators.kinds import Operator

OPERATORS: dict[str, Operator] = {
    name: operator
    for kind in (
        elementwise, convolution, normalisation, pooling, products, reductions, regularisation,
        resampling, shapes, creation, types, symbols,
    )
    for name, operator in kind.OPERATORS.items()
}  # fmt: skip
