"""Arithmetic, comparisons and activations.

Derivatives at kinks are PyTorch's: 0 at both ends of relu6, 1 at both ends of clamp.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erf

from mcjax.interop.exported.operators.kinds import elementwise


def _add(x, other, alpha=1):
    return x + (other if alpha == 1 else alpha * other)


def _sub(x, other, alpha=1):
    return x - (other if alpha == 1 else alpha * other)


def _rsub(x, other, alpha=1):
    return other - (x if alpha == 1 else alpha * x)


def _div(x, other, rounding_mode=None):
    if rounding_mode == "floor" and not _real(x):
        return x // other
    if rounding_mode == "floor":
        return jnp.floor(x / other)  # x // other has another derivative
    quotient = x / other
    return jnp.trunc(quotient) if rounding_mode == "trunc" else quotient


def _real(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _pow(x, exponent):
    return jnp.square(x) if not isinstance(exponent, Array) and exponent == 2 else x**exponent


def _clamp(x, min=None, max=None):
    below = False if min is None else x < min
    above = False if max is None else x > max
    x = x if min is None else jnp.where(below, jnp.asarray(min, x.dtype), x)
    return x if max is None else jnp.where(above, jnp.asarray(max, x.dtype), x)


def _between(x: Array, low: float, high: float) -> Array:
    """The value inside the open interval, constant outside, so that the derivative is 0 at both ends."""
    inside = jnp.where(x >= high, jnp.asarray(high, x.dtype), x)
    return jnp.where(x <= low, jnp.asarray(low, x.dtype), inside)


def _hardtanh(x, min_val=-1.0, max_val=1.0):
    return _between(x, min_val, max_val)


def _hardsigmoid(x):
    return _between(x, -3.0, 3.0) / 6 + 0.5


def _hardswish(x):
    middle = x * (x + 3) / 6
    return jnp.where(x <= -3, jnp.zeros_like(x), jnp.where(x < 3, middle, x))


def _leaky_relu(x, negative_slope=0.01):
    return jnp.where(x > 0, x, negative_slope * x)


def _elu(x, alpha=1.0, scale=1.0, input_scale=1.0):
    negative = jnp.where(x > 0, 0.0, x)  # exp of a large x would make the gradient NaN
    return jnp.where(x > 0, scale * x, scale * alpha * jnp.expm1(input_scale * negative))


def _celu(x, alpha=1.0):
    return _elu(x, alpha, 1.0, 1 / alpha)


def _selu(x):
    return _elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def _gelu(x, approximate="none"):
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _softplus(x, beta=1.0, threshold=20.0):
    large = x * beta > threshold
    return jnp.where(large, x, jax.nn.softplus(jnp.where(large, 0.0, x * beta)) / beta)


def _threshold(x, threshold, value):
    return jnp.where(x > threshold, x, value)


def _mish(x):
    return x * jnp.tanh(jax.nn.softplus(x))


def _where(condition, self=None, other=None):
    return jnp.where(condition, self, other)


def _masked_fill(x, mask, value):
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


def _addcmul(x, tensor1, tensor2, value=1):
    return x + value * tensor1 * tensor2


def _addcdiv(x, tensor1, tensor2, value=1):
    return x + value * tensor1 / tensor2


def _lerp(x, end, weight):
    return x + weight * (end - x)


def _copy(x, src, non_blocking=False):
    return jnp.broadcast_to(src, x.shape).astype(x.dtype)


def _fill(x, value):
    return jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)


def _two(fn: Any) -> Any:
    return lambda x, other: fn(x, other)


_ONE: dict[str, Any] = {
    "abs": jnp.abs,
    "atan": jnp.arctan,
    "bitwise_not": jnp.bitwise_not,
    "ceil": jnp.ceil,
    "cos": jnp.cos,
    "erf": erf,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "floor": jnp.floor,
    "isnan": jnp.isnan,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "log_sigmoid": jax.nn.log_sigmoid,
    "logical_not": jnp.logical_not,
    "neg": jnp.negative,
    "reciprocal": jnp.reciprocal,
    "relu": jax.nn.relu,
    "relu6": lambda x: _between(x, 0.0, 6.0),
    "round": jnp.round,
    "rsqrt": jax.lax.rsqrt,
    "sigmoid": jax.nn.sigmoid,
    "sign": jnp.sign,
    "silu": jax.nn.silu,
    "sin": jnp.sin,
    "softsign": jax.nn.soft_sign,
    "sqrt": jnp.sqrt,
    "square": jnp.square,
    "tanh": jnp.tanh,
    "trunc": jnp.trunc,
    "zero": jnp.zeros_like,
}
_TWO: dict[str, Any] = {
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "eq": jnp.equal,
    "floor_divide": lambda x, other: _div(x, other, "floor") if _real(x) else x // other,
    "ge": jnp.greater_equal,
    "gt": jnp.greater,
    "le": jnp.less_equal,
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
    "lt": jnp.less,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "mul": jnp.multiply,
    "ne": jnp.not_equal,
    "remainder": jnp.remainder,
}
_OTHER: dict[str, Any] = {
    "add": _add,
    "addcdiv": _addcdiv,
    "addcmul": _addcmul,
    "celu": _celu,
    "clamp": _clamp,
    "clamp_max": lambda x, max: _clamp(x, None, max),
    "clamp_min": lambda x, min: _clamp(x, min),
    "clip": _clamp,
    "copy": _copy,
    "div": _div,
    "elu": _elu,
    "fill": _fill,
    "gelu": _gelu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "lerp": _lerp,
    "masked_fill": _masked_fill,
    "mish": _mish,
    "pow": _pow,
    "rsub": _rsub,
    "selu": _selu,
    "softplus": _softplus,
    "sub": _sub,
    "threshold": _threshold,
    "true_divide": _div,
    "where": _where,
}
OPERATORS = {
    f"aten.{name}": elementwise(fn)
    for name, fn in {**_ONE, **{n: _two(f) for n, f in _TWO.items()}, **_OTHER}.items()
}
