"""Dropout."""

import jax
import jax.numpy as jnp

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.operators.kinds import with_call
from mcjax.interop.exported.values import Value


def dropout(call: Call, input: Value, p=0.5, train=False) -> Value:
    """In training mode each element is 0 with probability p, else divided by 1 - p."""
    return _dropped(call, input, p, input.array.shape)


def feature_dropout(call: Call, input: Value, p=0.5, train=False) -> Value:
    """The same for whole channels."""
    n, c = input.shape[:2]
    inner = (1,) * (input.ndim - 2)
    return _dropped(call, input, p, (n, *inner, c) if input.channels_last else (n, c, *inner))


def _dropped(call: Call, input: Value, p: float, shape: tuple[int, ...]) -> Value:
    if not call.training or p == 0:
        return input
    if p == 1:
        return Value(jnp.zeros_like(input.array), input.channels_last)
    kept = jax.random.bernoulli(call.random_key(), 1 - p, shape)
    return Value(jnp.where(kept, input.array / (1 - p), 0), input.channels_last)


OPERATORS = {
    "aten.dropout": with_call(dropout),
    "aten.feature_dropout": with_call(feature_dropout),
}
