"""New arrays: zeros, ones, ranges."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.operators.kinds import elementwise, with_call
from mcjax.interop.exported.operators.types import dtype_of
from mcjax.interop.exported.values import Value


def _filled(value: float) -> Any:
    def make(call: Call, size, dtype=None, **_: Any) -> Array:
        return jnp.full(call.new_shape(size), value, dtype_of(dtype))

    return with_call(make)


def _full(call: Call, size, fill_value, dtype=None, **_: Any) -> Array:
    return jnp.full(call.new_shape(size), fill_value, dtype_of(dtype, None))


def _like(value: float) -> Any:
    def make(self, dtype=None, **_: Any) -> Array:
        return jnp.full(self.shape, value, dtype_of(dtype, self.dtype))

    return elementwise(make)


def _full_like(self, fill_value, dtype=None, **_: Any) -> Array:
    return jnp.full(self.shape, fill_value, dtype_of(dtype, self.dtype))


def _new(value: float) -> Any:
    def make(call: Call, self: Value, size, dtype=None, **_: Any) -> Array:
        return jnp.full(call.new_shape(size), value, dtype_of(dtype, self.array.dtype))

    return with_call(make)


def _new_full(call: Call, self: Value, size, fill_value, dtype=None, **_: Any) -> Array:
    return jnp.full(call.new_shape(size), fill_value, dtype_of(dtype, self.array.dtype))


def _arange(call: Call, start, end=None, step=1, dtype=None, **_: Any) -> Array:
    return jnp.arange(start, end, step, dtype_of(dtype, None))


def _linspace(call: Call, start, end, steps, dtype=None, **_: Any) -> Array:
    return jnp.linspace(start, end, steps, dtype=dtype_of(dtype))


def _scalar(call: Call, s, dtype=None, **_: Any) -> Array:
    return jnp.asarray(s, dtype_of(dtype, None))


def _eye(call: Call, n, m=None, dtype=None, **_: Any) -> Array:
    return jnp.eye(n, m, dtype=dtype_of(dtype))


OPERATORS = {
    "aten.arange": with_call(_arange),
    "aten.eye": with_call(_eye),
    "aten.full": with_call(_full),
    "aten.full_like": elementwise(_full_like),
    "aten.linspace": with_call(_linspace),
    "aten.new_full": with_call(_new_full),
    "aten.new_ones": _new(1),
    "aten.new_zeros": _new(0),
    "aten.ones": _filled(1),
    "aten.ones_like": _like(1),
    "aten.scalar_tensor": with_call(_scalar),
    "aten.zeros": _filled(0),
    "aten.zeros_like": _like(0),
}
