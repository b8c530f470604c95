"""The largest eigenvalue of the loss's Hessian with respect to each image of a batch."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from mcjax.attacks.attack_losses import confident_cross_entropy, confident_log_softmax
from mcjax.attacks.checks import check_examples, check_logits
from mcjax.curvature import eigenvalue as core
from mcjax.curvature.eigenvalue import MAX_ITERS, TOLERANCE, TopEigenvalue, check_method
from mcjax.curvature.legacy import legacy_eigenvalue
from mcjax.errors import UserError
from mcjax.tree import as_partial

METHODS = ("power", "lanczos", "exact", "legacy")

LogitsFn = Callable[[jax.Array], jax.Array]


def input_hessian_eigenvalue(
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    method: str = "power",
    *,
    piecewise_linear: bool | None = None,
    max_iters: int | None = None,
    tolerance: float = TOLERANCE,
    key: jax.Array | None = None,
    return_eigenvector: bool = False,
) -> TopEigenvalue:
    r"""lambda_max(H_x), with H_x the Hessian of cross-entropy(logits(x), y) with respect to one image.

    power    Power iteration on Hessian-vector products (jvp of grad), shifted if a negative
             eigenvalue dominates, to a relative residual; see `mcjax.curvature.top_eigenvalue`.
    lanczos  A fully reorthogonalised Krylov space of max_iters vectors. Unlike power, it is not
             slowed down by nearly equal eigenvalues; it keeps its vectors in memory.
    exact    For logits that are piecewise linear in x, with Jacobian J,

                 H_x = J^T (diag p - p p^T) J = M^T M,  M = B^T J,  B = diag sqrt(p) - p sqrt(p)^T,

             and the nonzero eigenvalues are those of the classes x classes matrix M M^T: one
             vector-Jacobian product per class, no iteration.
    legacy   The published code's estimator, only for comparison with its results: one number for
             all images, which is not an eigenvalue of any of them; see `mcjax.curvature.legacy`.

    Args:
        logits_fn: `logits_fn(x) -> logits [B, classes]`; an example's logits must not depend on
            other examples (evaluation mode).
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        method: One of the above.
        piecewise_linear: Whether logits_fn is piecewise linear in x: `network.piecewise_linear`
            of a `Network`. "exact" requires True. If set to True for a smooth network, v is the top
            eigenvector of the Gauss-Newton part only, v . H_x v is a lower bound, and the residual
            shows the error.
        max_iters: Maximum number of products with H_x. Default: 300 for power, 30 for lanczos, 10
            for legacy.
        tolerance: Tolerance on power's relative residual.
        key: Key of the start vectors. Default: a fixed key.
        return_eigenvector: Return the eigenvectors too.

    Returns:
        .eigenvalue [B] in nats per squared unit of the image, .residual [B] (relative),
        .num_iters [B], .eigenvector [B, H, W, C] or None. For method legacy the same number is
        repeated B times, and the residual is NaN.

    Raises:
        UserError: The method is unknown, or "exact" without piecewise_linear=True; there are no
            images, or they are outside [0, 1]; labels are not valid classes; labels or logits have
            the wrong shape; max_iters or tolerance is invalid.

    Example:
        >>> logits_fn = lambda x: x.reshape(len(x), 2) @ jnp.array([[2.0, 0.0], [0.0, 0.0]])
        >>> x, y = jnp.zeros((1, 1, 2, 1)), jnp.array([0])
        >>> input_hessian_eigenvalue(logits_fn, x, y).eigenvalue  # p (1 - p) ||(2, 0)||^2
        Array([1.], dtype=float32)

    Source: Zhao et al. 2020, section 4.3; exact: Gauss-Newton, e.g. Schraudolph 2002, section 3.
    """
    check_method(method, METHODS, max_iters, tolerance)
    if method == "exact" and piecewise_linear is not True:
        why = "is not" if piecewise_linear is False else "may not be"
        raise UserError(
            f"method 'exact' needs a piecewise linear network, which this one {why}; use method "
            "'lanczos', or piecewise_linear=True (from network.piecewise_linear, or to force it)"
        )
    logits_fn = as_partial(logits_fn)
    check_examples(logits_fn, x, y)
    key = jax.random.key(0) if key is None else key
    top = _eigenvalue(
        key, logits_fn, x, y,
        method=method, max_iters=max_iters, tolerance=float(tolerance),
    )  # fmt: skip
    return top if return_eigenvector else top._replace(eigenvector=None)


def loss_gradient(logits_fn: LogitsFn, y: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The gradient of each example's cross-entropy with respect to its image.

    Args:
        logits_fn: See `input_hessian_eigenvalue`.
        y: Labels, [B].

    Returns:
        A function from images [B, H, W, C] to gradients of the same shape.
    """

    def total(x: jax.Array) -> jax.Array:
        return confident_cross_entropy(check_logits(logits_fn(x), len(x)), y).sum()

    return jax.grad(total)


@partial(jax.jit, static_argnames=("method", "max_iters", "tolerance"))
def _eigenvalue(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    *,
    method: str,
    max_iters: int | None,
    tolerance: float,
) -> TopEigenvalue:
    gradient_fn = loss_gradient(logits_fn, y)
    if method == "legacy":
        num = legacy_eigenvalue(key, gradient_fn, x, max_iters=max_iters or 10)
        rows = jnp.ones(len(x), x.dtype)
        return TopEigenvalue(
            num.eigenvalue * rows, jnp.nan * rows, num.num_iters * rows.astype(jnp.int32)
        )
    # Linearised once: everything that does not depend on the vector is shared.
    _, hvp = jax.linearize(gradient_fn, x)
    if method != "exact":
        return core.top_eigenvalue(
            hvp, x, key=key, method=method, tolerance=tolerance,
            max_iters=max_iters or MAX_ITERS[method],
        )  # fmt: skip
    v = _gauss_newton_vector(logits_fn, x)
    flat = v.reshape(len(x), -1)
    theta, residual = core.rayleigh(flat, hvp(v).reshape(flat.shape))
    return TopEigenvalue(theta, residual, jnp.ones(len(x), jnp.int32), v)


def _gauss_newton_vector(logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
    """The top eigenvectors of J^T (diag p - p p^T) J, [B, H, W, C]; 0 where it is zero."""
    logits, vjp = jax.vjp(logits_fn, x)
    num_classes = check_logits(logits, len(x)).shape[1]
    # B is computed in the log domain and scaled to a largest entry of 1, because a confident
    # network's p would underflow.
    log_p = confident_log_softmax(logits)
    eye = jnp.eye(num_classes, dtype=bool)[None]
    log_others = jax.nn.logsumexp(jnp.where(eye, -jnp.inf, log_p[:, None, :]), axis=2)  # 1 - p
    size = jnp.where(
        eye, (log_p / 2 + log_others)[:, :, None], log_p[:, :, None] + log_p[:, None, :] / 2
    )
    size = jnp.exp(size - size.max((1, 2), keepdims=True))
    b = jnp.where(eye, size, -size)  # the columns are the cotangents
    (m,) = jax.vmap(vjp)(jnp.moveaxis(b, 2, 0))  # [classes, B, H, W, C]
    rows = m.reshape(num_classes, len(x), -1)
    gram = jnp.einsum("ibn,jbn->bij", rows, rows, precision="highest")
    # eigh returns NaN for graded matrices of very small or large entries.
    largest = jnp.abs(gram).max((1, 2), keepdims=True)
    u = jnp.linalg.eigh(gram / jnp.where(largest > 0, largest, 1))[1][:, :, -1]
    v = jnp.einsum("bi,ibn->bn", u, rows, precision="highest")
    return core._unit(v).reshape(x.shape)
