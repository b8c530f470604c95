"""Norm balls around an image, intersected with the box [0, 1], for attacks on images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SPARSITY = 0.05
"""The fraction of an image's entries that one l1 step changes."""

_NUM_HALVINGS = 30
INSIDE = 1 - 1e-6
"""The part of the radius that projections in l1 and l2 use, so that rounding stays within all of it."""
_HUGE = 1e30  # replaces an infinite gradient; its reciprocal is not subnormal


class Ball(NamedTuple):
    """The three functions that define a norm for an attack.

    Attributes:
        start: `start(key, like, eps)`, a random perturbation in the ball, with the shape and dtype
            of `like`.
        direction: `direction(gradient, x)`, an ascent direction of unit norm at x, per example;
            the gradient must not contain NaN (see `ascent`).
        project: `project(x, z, eps)`, a point near z that lies in the ball around x and in the box
            [0, 1]; x must lie in the box.
    """

    start: Callable[[jax.Array, jax.Array, Any], jax.Array]
    direction: Callable[[jax.Array, jax.Array], jax.Array]
    project: Callable[[jax.Array, jax.Array, Any], jax.Array]


def ascent(ball: Ball, gradient: jax.Array, x: jax.Array) -> jax.Array:
    """The ball's ascent direction at x; entries whose gradient is NaN do not move.

    Args:
        ball: One of `BALLS`.
        gradient: Gradient of the loss at x, [B, H, W, C].
        x: Images, [B, H, W, C].

    Returns:
        Finite directions, [B, H, W, C].
    """
    return ball.direction(jnp.nan_to_num(gradient, posinf=_HUGE, neginf=-_HUGE), x)


def norm_l2(x: jax.Array) -> jax.Array:
    """The l2 norm of each example, [B, 1, 1, 1]."""
    return jnp.sqrt((x**2).sum(range(1, x.ndim), keepdims=True))


def size_in(norm: str, delta: jax.Array) -> jax.Array:
    """The norm of each example's perturbation, [B].

    Args:
        norm: "linf", "l2" or "l1".
        delta: Perturbations, [B, H, W, C].
    """
    if norm == "l2":
        return norm_l2(delta).reshape(len(delta))
    size = jnp.abs(delta)
    return size.max((1, 2, 3)) if norm == "linf" else size.sum((1, 2, 3))


def _unit(x: jax.Array) -> jax.Array:
    # Scaled first, because squares of a saturated network's gradients underflow.
    largest = jnp.abs(x).max(range(1, x.ndim), keepdims=True)
    scaled = x / jnp.where(largest > 0, largest, 1)
    return scaled / jnp.maximum(norm_l2(scaled), 1)  # the norm is at least 1 unless it is zero


def _start_linf(key: jax.Array, like: jax.Array, eps: Any) -> jax.Array:
    return jax.random.uniform(key, like.shape, like.dtype, minval=-eps, maxval=eps)


def _start_l2(key: jax.Array, like: jax.Array, eps: Any) -> jax.Array:
    direction, radius = jax.random.split(key)
    dimension = like[0].size
    r = jax.random.uniform(radius, (len(like), 1, 1, 1), like.dtype) ** (1 / dimension)
    return eps * r * _unit(jax.random.normal(direction, like.shape, like.dtype))


def _start_l1(key: jax.Array, like: jax.Array, eps: Any) -> jax.Array:
    # Laplace samples divided by their l1 norm plus one exponential sample are uniform in the ball.
    direction, rest = jax.random.split(key)
    z = jax.random.laplace(direction, like.shape, like.dtype)
    more = jax.random.exponential(rest, (len(like), 1, 1, 1), like.dtype)
    return eps * z / (jnp.abs(z).sum((1, 2, 3), keepdims=True) + more)


def _direction_l1(gradient: jax.Array, x: jax.Array) -> jax.Array:
    """Equal steps along the entries of largest gradient that are not blocked by the box.

    The exact steepest ascent changes a single entry; changing several needs far fewer steps.
    """
    size = free_size(gradient, x)
    k = max(1, round(SPARSITY * size.shape[1]))
    least = lax.top_k(size, k)[0][:, -1:]
    chosen = ((size >= least) & (size > 0)).reshape(x.shape)
    count = chosen.sum((1, 2, 3), keepdims=True)
    return jnp.where(chosen, jnp.sign(gradient), 0) / jnp.maximum(count, 1)


def free_size(gradient: jax.Array, x: jax.Array) -> jax.Array:
    """|gradient|, [B, D], zero in entries that the box does not let move along the gradient."""
    free = jnp.where(gradient > 0, x < 1, x > 0)
    return jnp.where(free, jnp.abs(gradient), 0).reshape(len(x), -1)


def sparse_direction(gradient: jax.Array, x: jax.Array, count: jax.Array) -> jax.Array:
    """Equal steps along each image's `count` largest entries that the box does not block.

    Args:
        gradient: Gradient of the loss at x, [B, H, W, C], without NaN.
        x: Images, [B, H, W, C].
        count: Number of entries to move, int [B], at least 1.

    Returns:
        Directions of unit l1 norm, [B, H, W, C]; zero where every entry is blocked.

    Example:
        >>> g, x = jnp.array([3.0, -2.0, 1.0]), jnp.array([1.0, 0.5, 0.5])
        >>> sparse_direction(g.reshape(1, 1, 1, 3), x.reshape(1, 1, 1, 3), jnp.array([1])).ravel()
        Array([ 0., -1.,  0.], dtype=float32)

    Source: Croce & Hein 2021, section 3.
    """
    size = free_size(gradient, x)
    # Floats that are not negative are ordered as their bits: 31 halvings find the count-th largest.
    bits = lax.bitcast_convert_type(size.astype(jnp.float32), jnp.int32)

    def halve(i: jax.Array, least: jax.Array) -> jax.Array:
        higher = least + (1 << (30 - i))
        return jnp.where((bits >= higher[:, None]).sum(1) >= count, higher, least)

    least = lax.fori_loop(0, 31, halve, jnp.zeros(len(x), jnp.int32))
    chosen = ((bits >= least[:, None]) & (size > 0)).reshape(x.shape)
    moved = chosen.sum((1, 2, 3), keepdims=True)
    return jnp.where(chosen, jnp.sign(gradient), 0) / jnp.maximum(moved, 1)


def project_l1(x: jax.Array, z: jax.Array, eps: Any) -> jax.Array:
    """Projects z onto the intersection of the l1 ball around x and the box [0, 1].

    Projecting onto the ball and then onto the box would end well inside the ball. With u = z - x and
    r_i = 1 - x_i for u_i > 0, x_i otherwise, the projection is

        x_i + sign(u_i) clip(|u_i| - tau, 0, r_i),

    with the smallest tau >= 0 for which its l1 distance S(tau) from x is at most eps. S is
    non-increasing and piecewise linear: tau is found by bisection, then by interpolation in the last
    interval.

    Args:
        x: Centres, [B, H, W, C], in [0, 1].
        z: Points to project, [B, H, W, C], unbounded.
        eps: Radius.

    Returns:
        The projections.

    Example:
        >>> x, z = jnp.array([0.5, 0.9]), jnp.array([0.7, 1.3])
        >>> project_l1(x.reshape(1, 1, 1, 2), z.reshape(1, 1, 1, 2), 0.2).round(3).ravel()
        Array([0.6, 1. ], dtype=float32)

    Source: the problem of Croce & Hein 2021, proposition 3.1; Duchi et al. 2008 without the box.
    """
    eps = eps * INSIDE
    u = (z - x).reshape(len(x), -1)
    flat = x.reshape(u.shape)
    size, room = jnp.abs(u), jnp.where(u > 0, 1 - flat, flat)

    def distance(tau: jax.Array) -> jax.Array:
        return (size - tau).clip(0, room).sum(1, keepdims=True)

    def halve(_: jax.Array, interval: tuple[jax.Array, jax.Array]) -> Any:
        low, high = interval
        middle = (low + high) / 2
        far = distance(middle) > eps
        return jnp.where(far, middle, low), jnp.where(far, high, middle)

    first = (jnp.zeros((len(x), 1), u.dtype), size.max(1, keepdims=True))
    low, high = lax.fori_loop(0, _NUM_HALVINGS, halve, first)
    outer, inner = distance(low), distance(high)
    tau = low + (high - low) * ((outer - eps) / jnp.where(outer > inner, outer - inner, 1)).clip(
        0, 1
    )
    return (x + (jnp.sign(u) * (size - tau).clip(0, room)).reshape(x.shape)).clip(0, 1)


BALLS = {
    "linf": Ball(
        start=_start_linf,
        direction=lambda gradient, x: jnp.sign(gradient),
        project=lambda x, z, eps: (x + (z - x).clip(-eps, eps)).clip(0, 1),
    ),
    "l2": Ball(
        start=_start_l2,
        direction=lambda gradient, x: _unit(gradient),
        # Ball, then box: feasible, because clipping only moves z closer to x, but not the exact
        # projection onto the intersection.
        project=lambda x, z, eps: (
            x + (z - x) * jnp.minimum(1, eps * INSIDE / jnp.maximum(norm_l2(z - x), 1e-12))
        ).clip(0, 1),
    ),
    "l1": Ball(start=_start_l1, direction=_direction_l1, project=project_l1),
}
