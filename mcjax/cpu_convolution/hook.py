"""Access to JAX's private CPU lowering rule for convolutions (the only use of private JAX code)."""

from typing import Any

from jax import lax
from jax.interpreters import mlir

PRIMITIVE = lax.conv_general_dilated_p


def _original() -> Any:
    try:
        return mlir._platform_specific_lowerings["cpu"][PRIMITIVE].rule
    except (AttributeError, KeyError, TypeError):
        return None


ORIGINAL: Any = _original()
"""JAX's rule `(ctx, lhs, rhs, **params) -> values`; None if this version has moved it."""


def register(rule: Any) -> None:
    """Registers a rule for JAX's CPU lowering of convolutions."""
    mlir.register_lowering(PRIMITIVE, rule, platform="cpu")
