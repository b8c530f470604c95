"""Access to JAX's private CPU lowering rules (the only use of private JAX code)."""

from typing import Any

from jax import lax
from jax.interpreters import mlir

CONVOLUTION = lax.conv_general_dilated_p
POOLS = (lax.reduce_window_max_p, lax.select_and_gather_add_p, lax.select_and_scatter_add_p)
"""The maximum over windows, its tangent, and its gradient."""


def _original(primitive: Any) -> Any:
    try:
        table = mlir._platform_specific_lowerings["cpu"]
        return (table.get(primitive) or mlir._lowerings[primitive]).rule
    except (AttributeError, KeyError, TypeError):
        return None


ORIGINAL: dict[Any, Any] = {one: _original(one) for one in (CONVOLUTION, *POOLS)}
"""JAX's rules `(ctx, *operands, **params) -> values`; None where this version has moved them."""


def register(primitive: Any, rule: Any) -> None:
    """Registers a rule for JAX's CPU lowering of a primitive."""
    mlir.register_lowering(primitive, rule, platform="cpu")
