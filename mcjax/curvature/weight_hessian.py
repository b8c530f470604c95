"""The largest eigenvalue of a loss's Hessian with respect to the weights."""

from collections.abc import Callable
from functools import partial

import jax
from jax.flatten_util import ravel_pytree

from mcjax.core.tree import PyTree, as_partial
from mcjax.curvature.eigenvalue import METHODS, TOLERANCE, TopEigenvalue, check_method
from mcjax.curvature.eigenvalue import top_eigenvalue as _top_eigenvalue


def weight_hessian_eigenvalue(
    loss_fn: Callable[[PyTree], jax.Array],
    params: PyTree,
    method: str = "lanczos",
    *,
    max_iters: int | None = None,
    tolerance: float = TOLERANCE,
    key: jax.Array | None = None,
    return_eigenvector: bool = False,
) -> TopEigenvalue:
    """lambda_max of the Hessian of loss_fn at params.

    With params = (weights, images) it is the eigenvalue of the joint Hessian.

    Args:
        loss_fn: `loss_fn(params) -> scalar`, e.g. a mean over examples.
        params: A tree of floats, all of the same dtype.
        method: "power" or "lanczos"; see `mcjax.curvature.top_eigenvalue`.
        max_iters: Maximum number of Hessian-vector products. Default: 300 for power, 30 for lanczos.
        tolerance: Tolerance on power's relative residual.
        key: Key of the start vector. Default: a fixed key.
        return_eigenvector: Return the eigenvector too.

    Returns:
        .eigenvalue [], .residual [] (relative), .num_iters [], .eigenvector like params or None.

    Raises:
        UserError: The method is unknown; max_iters or tolerance is invalid.

    Example:
        >>> top = weight_hessian_eigenvalue(lambda w: 3 * w["a"] ** 2 - 5 * w["b"] ** 2, {"a": 1.0, "b": 1.0})
        >>> round(float(top.eigenvalue), 3)
        6.0

    Source: Yao et al. 2018, section 3 (Hessian-vector products for weights).
    """
    check_method(method, METHODS, max_iters, tolerance)
    key = jax.random.key(0) if key is None else key
    top = _eigenvalue(
        key, as_partial(loss_fn, "loss_fn"), params,
        method=method, max_iters=max_iters, tolerance=float(tolerance),
    )  # fmt: skip
    return top if return_eigenvector else top._replace(eigenvector=None)


@partial(jax.jit, static_argnames=("method", "max_iters", "tolerance"))
def _eigenvalue(
    key: jax.Array,
    loss_fn: Callable[[PyTree], jax.Array],
    params: PyTree,
    *,
    method: str,
    max_iters: int | None,
    tolerance: float,
) -> TopEigenvalue:
    flat, unravel = ravel_pytree(params)
    _, hvp = jax.linearize(jax.grad(lambda w: loss_fn(unravel(w))), flat)
    top = _top_eigenvalue(
        lambda v: hvp(v[0])[None], flat[None], key=key, method=method,
        max_iters=max_iters, tolerance=tolerance,
    )  # fmt: skip
    one = jax.tree.map(lambda a: a[0], top)
    return one._replace(eigenvector=unravel(one.eigenvector))
