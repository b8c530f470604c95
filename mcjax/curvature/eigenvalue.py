"""The algebraically largest eigenvalue of many symmetric operators, from matrix-vector products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mcjax.core.errors import UserError, shown

METHODS = ("power", "lanczos")
MAX_ITERS = {"power": 300, "lanczos": 30}
TOLERANCE = 1e-3

Operator = Callable[[jax.Array], jax.Array]

# Power iterations before a dominant negative eigenvalue is tested for, when small ones have decayed.
_WARM_UP = 10


class TopEigenvalue(NamedTuple):
    """The largest eigenvalue of each operator.

    Attributes:
        eigenvalue: theta, [B].
        residual: ||H v - theta v|| / |theta| with ||v|| = 1, [B]: some eigenvalue of H lies within
            residual * |theta| of theta. 0 where H is zero.
        num_iters: Number of products with H, [B].
        eigenvector: v, [B, ...], or None if not requested.
    """

    eigenvalue: jax.Array
    residual: jax.Array
    num_iters: jax.Array
    eigenvector: jax.Array | None = None


def top_eigenvalue(
    hvp: Operator,
    like: jax.Array,
    *,
    key: jax.Array,
    method: str = "power",
    max_iters: int | None = None,
    tolerance: float = TOLERANCE,
) -> TopEigenvalue:
    """max_i lambda_i of each of B symmetric operators (the largest value, not magnitude).

    power    v <- (H + s I) v / ||.||, with s = 0 as long as the dominant eigenvalue is positive. If
             a negative one dominates, s is set to its magnitude, which makes H + s I positive, and
             the iteration restarts. It stops at the tolerance; nearly equal eigenvalues are slow.
    lanczos  The largest eigenvalue of H on the Krylov space of max_iters vectors, each
             orthogonalised twice against all previous ones; stops early if the space is exhausted.

    Args:
        hvp: `hvp(v) -> H v` for v with the shape of `like`; v[i] is multiplied by operator i only.
        like: Array whose shape [B, ...] and dtype are used.
        key: Key of the start vectors.
        method: "power" or "lanczos".
        max_iters: Maximum number of products. Default: 300 for power, 30 for lanczos, which keeps
            that many vectors in memory.
        tolerance: Tolerance on power's residual.

    Returns:
        The eigenvalues with their residuals and eigenvectors.

    Raises:
        UserError: The method is unknown; max_iters is less than 1; tolerance is negative.

    Example:
        >>> diagonals = jnp.array([[3.0, 1.0, -5.0], [-1.0, -2.0, -3.0]])
        >>> top = top_eigenvalue(lambda v: diagonals * v, diagonals, key=jax.random.key(0))
        >>> [round(float(theta), 3) for theta in top.eigenvalue]
        [3.0, -1.0]

    Source: Golub & Van Loan 2013, sections 8.2 and 10.3.
    """
    check_method(method, METHODS, max_iters, tolerance)
    max_iters = MAX_ITERS[method] if max_iters is None else max_iters
    start = jax.random.normal(key, like.shape, like.dtype).reshape(len(like), -1)

    def matvec(v: jax.Array) -> jax.Array:
        return hvp(v.reshape(like.shape)).reshape(v.shape)

    if method == "power":
        top = _power(matvec, _unit(start), max_iters, tolerance)
    else:
        top = _lanczos(matvec, _unit(start), min(max_iters, start.shape[1]))
    return top._replace(eigenvector=top.eigenvector.reshape(like.shape))  # type: ignore[union-attr]


def check_method(
    method: str, known: tuple[str, ...], max_iters: int | None, tolerance: float
) -> None:
    """Checks the method and its limits."""
    if method not in known:
        raise UserError(f"unknown method {shown(method)}; use one of {', '.join(known)}")
    if max_iters is not None and max_iters < 1:
        raise UserError(f"max_iters is {max_iters}; give at least 1")
    if not tolerance >= 0:
        raise UserError(f"tolerance is {tolerance}; it must not be negative")


def rayleigh(v: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rayleigh quotient and relative residual of unit vectors v with w = H v, each [B]."""
    theta = (v * w).sum(1)
    distance = _norm(w - theta[:, None] * v)[:, 0]
    return theta, distance / jnp.maximum(jnp.abs(theta), jnp.finfo(v.dtype).tiny)


def _norm(v: jax.Array) -> jax.Array:
    # Scaled first: for confident networks, squares of the Hessian's entries underflow.
    largest = jnp.abs(v).max(1, keepdims=True)
    safe = jnp.where(largest > 0, largest, 1)
    return largest * jnp.sqrt(((v / safe) ** 2).sum(1, keepdims=True))


def _unit(v: jax.Array) -> jax.Array:
    norm = _norm(v)
    return v / jnp.where(norm > 0, norm, 1)


class _Power(NamedTuple):
    i: jax.Array
    following: jax.Array  # the next vector
    v: jax.Array  # the last vector, and its results
    theta: jax.Array
    residual: jax.Array
    shift: jax.Array
    num_iters: jax.Array
    done: jax.Array


def _power(matvec: Operator, start: jax.Array, max_iters: int, tolerance: float) -> TopEigenvalue:
    def step(s: _Power) -> _Power:
        v = s.following
        w = matvec(v)
        theta, residual = rayleigh(v, w)
        size = _norm(w)[:, 0]
        settled, shifted = residual <= tolerance, s.shift > 0
        # With s = 0, either a negative eigenvalue was found, or one prevents v from converging: for
        # a positive operator v . H v would be close to ||H v|| by now.
        negative = ~shifted & (s.i >= _WARM_UP) & (theta < 0.9 * size)
        # A shift is too small if v then converges below -s: it came from another negative eigenvalue.
        negative = jnp.where(settled, theta < -1.001 * s.shift, negative) & ~s.done
        shift = jnp.where(negative, size, s.shift)
        moved = w + shift[:, None] * v
        following = jnp.where(negative[:, None], start, _unit(moved))
        # A start close to the eigenvector of -s looks converged until its other components have
        # grown; if there are none, H is -s everywhere.
        waits = shifted & (theta < -0.999 * s.shift) & (_norm(moved)[:, 0] > 1e-5 * s.shift)
        kept = s.done[:, None]
        return _Power(
            i=s.i + 1,
            following=jnp.where(kept, v, following),
            v=jnp.where(kept, s.v, v),
            theta=jnp.where(s.done, s.theta, theta),
            residual=jnp.where(s.done, s.residual, residual),
            shift=shift,
            num_iters=s.num_iters + ~s.done,
            done=s.done | (settled & ~negative & ~waits),
        )

    zeros = jnp.zeros(len(start), start.dtype)
    first = _Power(
        i=jnp.asarray(0),
        following=start,
        v=start,
        theta=zeros,
        residual=zeros,
        shift=zeros,
        num_iters=jnp.zeros(len(start), jnp.int32),
        done=jnp.zeros(len(start), bool),
    )
    last = lax.while_loop(lambda s: (s.i < max_iters) & ~s.done.all(), step, first)
    return TopEigenvalue(last.theta, last.residual, last.num_iters, last.v)


class _Krylov(NamedTuple):
    j: jax.Array
    basis: jax.Array  # [m, B, n], zero where the space was exhausted
    alpha: jax.Array  # [m, B], the diagonal
    beta: jax.Array  # [m, B], the off-diagonal: beta[j] couples j and j + 1
    scale: jax.Array  # [B], scale of the operator
    alive: jax.Array  # [B]


def _lanczos(matvec: Operator, start: jax.Array, m: int) -> TopEigenvalue:
    dtype = start.dtype
    exhausted = 10 * float(jnp.finfo(dtype).eps)

    def step(s: _Krylov) -> _Krylov:
        v = s.basis[s.j]
        w = matvec(v)
        alpha = (v * w).sum(1)
        for _ in range(2):  # a single pass loses orthogonality to rounding
            w = w - jnp.einsum("mb,mbn->bn", jnp.einsum("mbn,bn->mb", s.basis, w), s.basis)
        beta = _norm(w)[:, 0]
        scale = jnp.maximum(s.scale, jnp.maximum(jnp.abs(alpha), beta))
        alive = s.alive & (beta > exhausted * scale)
        following = jnp.where(alive[:, None], _unit(w), 0)
        # An unused row must not add a large eigenvalue: it gets one below v_0's quotient.
        nothing = s.alpha[0] - jnp.abs(s.alpha[0])
        return _Krylov(
            j=s.j + 1,
            basis=s.basis.at[s.j + 1].set(following, mode="drop"),
            alpha=s.alpha.at[s.j].set(jnp.where(s.alive | (s.j == 0), alpha, nothing)),
            beta=s.beta.at[s.j].set(jnp.where(alive, beta, 0)),
            scale=scale,
            alive=alive,
        )

    num = len(start)
    first = _Krylov(
        j=jnp.asarray(0),
        basis=jnp.zeros((m, *start.shape), dtype).at[0].set(start),
        alpha=jnp.zeros((m, num), dtype),
        beta=jnp.zeros((m, num), dtype),
        scale=jnp.zeros(num, dtype),
        alive=jnp.ones(num, bool),
    )
    last = lax.while_loop(lambda s: (s.j < m) & s.alive.any(), step, first)
    used = (last.basis != 0).any(2)  # [m, B]
    nothing = last.alpha[0] - jnp.abs(last.alpha[0])
    alpha = jnp.where(used, last.alpha, nothing[None])
    beta = jnp.where(used, last.beta, 0)[: m - 1]
    scale = jnp.where(last.scale > 0, last.scale, 1)  # squares of tiny entries would underflow
    ritz = _top_of_tridiagonal((alpha / scale[None]).T, (beta / scale[None]).T)
    v = _unit(jnp.einsum("bm,mbn->bn", ritz, last.basis))
    theta, residual = rayleigh(v, matvec(v))
    return TopEigenvalue(theta, residual, used.sum(0).astype(jnp.int32) + 1, v)


def _top_of_tridiagonal(alpha: jax.Array, beta: jax.Array) -> jax.Array:
    """The eigenvector of the largest eigenvalue, [B, m]."""
    m = alpha.shape[1]
    matrix = alpha[:, :, None] * jnp.eye(m, dtype=alpha.dtype)[None]
    if m > 1:
        rows = jnp.arange(m - 1)
        matrix = matrix.at[:, rows, rows + 1].set(beta).at[:, rows + 1, rows].set(beta)
    vectors: Any = jnp.linalg.eigh(matrix)[1]
    return vectors[:, :, -1]
