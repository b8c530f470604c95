"""Sums, means, extrema, variances, norms, and softmax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mcjax.interop.exported.operators.kinds import by_values, plain
from mcjax.interop.exported.values import TO_FIRST, Value

_PLACE = (0, 3, 1, 2)  # where PyTorch's axes of images are stored


def axes_of(dim: Any, ndim: int) -> tuple[int, ...]:
    """Axes as non-negative integers; None or () means all."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    return tuple(d % ndim for d in ((dim,) if isinstance(dim, int) else dim))


def _over_axes(fn: Callable[..., Array]) -> Callable[..., Value]:
    """A reduction that keeps images channels last where it can."""

    def reduce(self: Value, dim=None, keepdim=False, dtype=None, **options: Any) -> Value:
        axes = axes_of(dim, self.ndim)
        if not self.channels_last:
            return Value(fn(self.array, axes, keepdim, **options))
        y = fn(self.array, tuple(_PLACE[d] for d in axes), True, **options)
        if keepdim:
            return Value(y, True)
        return Value(y.transpose(TO_FIRST).squeeze(axes))

    return reduce


def _mean(x, axes, keepdim):
    return x.mean(axes, keepdims=keepdim)


def _sum(x, axes, keepdim):
    return x.sum(axes, keepdims=keepdim)


def _largest(x, axes, keepdim):
    return x.max(axes, keepdims=keepdim)


def _smallest(x, axes, keepdim):
    return x.min(axes, keepdims=keepdim)


def _variance(x, axes, keepdim, correction=1, unbiased=True):
    return x.var(axes, ddof=float(correction if unbiased else 0), keepdims=keepdim)


def _deviation(x, axes, keepdim, correction=1, unbiased=True):
    return jnp.sqrt(_variance(x, axes, keepdim, correction, unbiased))


def _norm(self: Value, ord=2, dim=None, keepdim=False, dtype=None) -> Value:
    axes, x = axes_of(dim, self.ndim), self.plain()
    if ord == 2:
        return Value(_root(jnp.square(x).sum(axes, keepdims=keepdim)))
    if ord == float("inf"):
        return Value(jnp.abs(x).max(axes, keepdims=keepdim))
    return Value((jnp.abs(x) ** ord).sum(axes, keepdims=keepdim) ** (1 / ord))


def _root(square: Array) -> Array:
    """The square root, with a gradient of 0 at 0, as PyTorch's norms have."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def _extremum(fn: Any, position: Any) -> Any:
    """The operators max and min: of all elements, or with their positions along an axis."""

    def extremum(self, dim=None, keepdim=False) -> Any:
        if dim is None:
            return fn(self, (), False) if self.ndim == 0 else fn(self, None, False)
        return fn(self, (dim,), keepdim), position(self, dim, keepdims=keepdim)

    return extremum


def _softmax(x, dim, dtype=None, half_to_float=False):
    return jax.nn.softmax(x, dim)


def _log_softmax(x, dim, dtype=None, half_to_float=False):
    return jax.nn.log_softmax(x, dim)


def _logsumexp(x, dim, keepdim=False):
    return jax.scipy.special.logsumexp(x, axes_of(dim, x.ndim), keepdims=keepdim)


def _argmax(x, dim=None, keepdim=False):
    return jnp.argmax(x, dim, keepdims=keepdim)


def _cumsum(x, dim, dtype=None):
    return jnp.cumsum(x, dim)


def _prod(x, dim=None, keepdim=False, dtype=None):
    return x.prod(dim, keepdims=keepdim)


OPERATORS = {
    "aten.mean": by_values(_over_axes(_mean)),
    "aten.sum": by_values(_over_axes(_sum)),
    "aten.amax": by_values(_over_axes(_largest)),
    "aten.amin": by_values(_over_axes(_smallest)),
    "aten.var": by_values(_over_axes(_variance)),
    "aten.std": by_values(_over_axes(_deviation)),
    "aten.linalg_vector_norm": by_values(_norm),
    "aten.max": plain(_extremum(_largest, jnp.argmax)),
    "aten.min": plain(_extremum(_smallest, jnp.argmin)),
    "aten.prod": plain(_prod),
    "aten.argmax": plain(_argmax),
    "aten.cumsum": plain(_cumsum),
    "aten.logsumexp": plain(_logsumexp),
    "aten.softmax": plain(_softmax),
    "aten._softmax": plain(_softmax),
    "aten.log_softmax": plain(_log_softmax),
    "aten._log_softmax": plain(_log_softmax),
}
