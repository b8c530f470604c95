"""The nearest point of a hyperplane within the box [0, 1], in l_inf, l2 and l1."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_MOST_STEPS = 50  # of Newton's method; it ends after about five
_NUM_HALVINGS = 40
_PRECISION = 1e-6


def step_to_hyperplane(w: jax.Array, c: jax.Array, x: jax.Array, norm: str) -> jax.Array:
    """The smallest delta with <w, delta> = c and x + delta in [0, 1], per example.

    With a_i = |w_i|, s_i = sign(w_i) sign(c) and r_i the distance from x_i to the box in direction
    s_i, delta_i = s_i u_i and u is

        linf: min(tau, r_i)         l2: min(tau a_i, r_i)
        l1:   r_i for the entries of largest a_i, in part for the last, else 0

    with the least tau for which sum_i a_i u_i = |c|. For linf and l2 this sum is increasing, concave and
    piecewise linear in tau, so Newton's method from 0 ends at the exact tau after finitely many
    steps. Where the box does not reach the hyperplane, u_i = r_i for every w_i that is not 0.

    Args:
        w: Normal vectors, [B, H, W, C]; where all of w is 0, delta is 0.
        c: Signed distances to cover, in units of <w, delta>, [B].
        x: Images, [B, H, W, C], in [0, 1].
        norm: "linf", "l2" or "l1".

    Returns:
        The steps delta, [B, H, W, C].

    Example:
        >>> w, x = jnp.array([3.0, 4.0]).reshape(1, 1, 1, 2), jnp.full((1, 1, 1, 2), 0.5)
        >>> [step_to_hyperplane(w, jnp.array([1.0]), x, norm).ravel() for norm in ("linf", "l2", "l1")]
        [Array([0.14285715, 0.14285715], dtype=float32), Array([0.12, 0.16], dtype=float32), Array([0.  , 0.25], dtype=float32)]

    Source: Croce & Hein 2020 (FAB), section 2.1 and equations 4 to 6.
    """
    signed = (w * jnp.sign(c)[:, None, None, None]).reshape(len(x), -1)
    flat = x.reshape(signed.shape)
    a, room = jnp.abs(signed), jnp.where(signed > 0, 1 - flat, flat)
    largest = a.max(1, keepdims=True)
    largest = jnp.where(largest > 0, largest, 1)
    a, need = a / largest, jnp.abs(c)[:, None] / largest
    room = jnp.where(a > 0, room, 0)
    u = _FILL[norm](a, room, need)
    u = jnp.where((a * room).sum(1, keepdims=True) <= need, room, u)
    return (jnp.sign(signed) * u).reshape(x.shape)


def _fill_linf(a: jax.Array, room: jax.Array, need: jax.Array) -> jax.Array:
    return jnp.minimum(_solve(a, jnp.ones_like(a), room, need), room)


def _fill_l2(a: jax.Array, room: jax.Array, need: jax.Array) -> jax.Array:
    return jnp.minimum(_solve(a, a, room, need) * a, room)


def _solve(a: jax.Array, rate: jax.Array, room: jax.Array, need: jax.Array) -> jax.Array:
    """The least tau, [B, 1], with sum_i a_i min(tau rate_i, room_i) = need."""

    def missing(tau: jax.Array) -> jax.Array:
        return need - (a * jnp.minimum(tau * rate, room)).sum(1, keepdims=True)

    def step(state: tuple[Any, jax.Array, jax.Array]) -> tuple[Any, jax.Array, jax.Array]:
        i, tau, gap = state
        slope = jnp.where(tau * rate < room, a * rate, 0).sum(1, keepdims=True)
        tau = tau + jnp.where(slope > 0, gap / jnp.where(slope > 0, slope, 1), 0)
        tau = jnp.where(jnp.isfinite(tau), tau, 0)
        return i + 1, tau, jnp.where(slope > 0, missing(tau), 0)

    def unfinished(state: tuple[Any, jax.Array, jax.Array]) -> jax.Array:
        i, _, gap = state
        return (i < _MOST_STEPS) & (gap > _PRECISION * need).any()

    zero = jnp.zeros_like(need)
    return lax.while_loop(unfinished, step, (jnp.asarray(0), zero, need))[1]


def _fill_l1(a: jax.Array, room: jax.Array, need: jax.Array) -> jax.Array:
    """Entries above a threshold in full; those that 40 halvings cannot separate share the rest."""

    def filled(threshold: jax.Array) -> jax.Array:
        return jnp.where(a > threshold, a * room, 0).sum(1, keepdims=True)

    def halve(_: Any, interval: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = interval
        middle = (low + high) / 2
        enough = filled(middle) >= need
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    # a is at most 1: nothing is above 1, and everything with room above 0.
    low, high = lax.fori_loop(0, _NUM_HALVINGS, halve, (jnp.zeros_like(need), jnp.ones_like(need)))
    inner, outer = filled(high), filled(low)
    share = (need - inner) / jnp.where(outer > inner, outer - inner, 1)
    return jnp.where(a > high, room, jnp.where(a > low, share.clip(0, 1) * room, 0))


_FILL = {"linf": _fill_linf, "l2": _fill_l2, "l1": _fill_l1}
