"""PyTorch's numbers for types, and conversions between types."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from mcjax.interop.exported.graph import Dtype
from mcjax.interop.exported.operators.kinds import elementwise, plain

_NAMES: dict[int, Any] = {
    1: jnp.uint8,
    2: jnp.int8,
    3: jnp.int16,
    4: jnp.int32,
    5: jnp.int32,  # JAX computes in 32 bits
    7: jnp.float32,
    12: jnp.bool_,
}


def dtype_of(dtype: Dtype | None, default: Any = jnp.float32) -> Any:
    """JAX's type; 64-bit integers become 32-bit ones.

    Raises:
        ValueError: The type has another precision.
    """
    if dtype is None:
        return default
    if dtype.code not in _NAMES:
        raise ValueError(f"type {dtype.code} of PyTorch has no counterpart; use float32")
    return _NAMES[dtype.code]


def _to(self, dtype=None, *args: Any, **options: Any) -> Array:
    if not isinstance(dtype, Dtype):  # to.device, to.other
        return self
    target = dtype_of(dtype)
    same = jnp.issubdtype(self.dtype, jnp.floating) and jnp.issubdtype(target, jnp.floating)
    return self if same else self.astype(target)


def _as(self, other, *args: Any, **options: Any) -> Array:
    return self.astype(other.dtype)


def _same(self, *args: Any, **options: Any) -> Array:
    return self


OPERATORS = {
    **{
        f"aten.{name}": elementwise(_same)
        for name in ("alias", "clone", "contiguous", "lift_fresh_copy", "lift_fresh")
    },
    "aten.detach": elementwise(lax.stop_gradient),
    "aten.to": elementwise(_to),
    "aten._to_copy": elementwise(_to),
    "aten.type_as": plain(_as),
}
