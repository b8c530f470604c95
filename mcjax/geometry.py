"""Lengths and distances along a curve, computed from inner products of its control points.

With d_j = w_j - w_0 and G_ij = <d_i, d_j>, every squared length is a quadratic form:
||sum_j a_j w_j||^2 = a^T G a for any a that sums to zero. The cost is that of the
(num_bends + 2)^2 inner products, for any number of t's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mcjax.curves import Curve


def gram(curve: Curve) -> jax.Array:
    """G_ij = <w_i - w_0, w_j - w_0> over all parameters, [num_bends + 2, num_bends + 2].

    Example:
        >>> from mcjax.curves import Bezier
        >>> gram(Bezier.connect({"w": jnp.zeros(4)}, {"w": jnp.ones(4)}, num_bends=0))
        Array([[0., 0.],
               [0., 4.]], dtype=float32)
    """
    d = [jax.tree.map(lambda a, b: a - b, point, curve.start) for point in curve.points]
    return jnp.stack([jnp.stack([jnp.asarray(optax.tree.vdot(a, b)) for b in d]) for a in d])


def _norms(G: jax.Array, a: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(jnp.einsum("ti,ij,tj->t", a, G, a), 0))


def step_lengths(curve: Curve, ts: jax.typing.ArrayLike) -> jax.Array:
    """||w(t_i) - w(t_{i-1})|| between consecutive t's, [len(ts) - 1]."""
    c = jax.vmap(curve.coefficients)(jnp.asarray(ts, jnp.float32))
    return _norms(gram(curve), c[1:] - c[:-1])


def arc_length(curve: Curve, *, num_points: int = 1001) -> jax.Array:
    """Length of the curve in weight space: the sum of chords between equally spaced t's.

    Args:
        curve: Any curve.
        num_points: Number of t's; for a smooth curve the error falls as 1 / num_points^2.

    Returns:
        A scalar, in the units of the weights.

    Example:
        >>> from mcjax.curves import Bezier
        >>> line = Bezier.connect({"w": jnp.zeros(4)}, {"w": jnp.ones(4)})
        >>> round(float(arc_length(line)), 4)
        2.0
    """
    return step_lengths(curve, jnp.linspace(0, 1, num_points)).sum()


def distances(curve: Curve, ts: jax.typing.ArrayLike, point: int = 0) -> jax.Array:
    """||w(t) - w_j|| at each t, [len(ts)]; `point` is j (0 for the start, -1 for the end)."""
    c = jax.vmap(curve.coefficients)(jnp.asarray(ts, jnp.float32))
    e = jnp.zeros_like(c[0]).at[point].set(1)
    return _norms(gram(curve), c - e[None])


class Farthest(NamedTuple):
    """The point of a curve that is farthest from a control point.

    Attributes:
        t: Its position, in [0, 1].
        distance: Its distance, in the units of the weights.
    """

    t: jax.Array
    distance: jax.Array


def farthest_point(curve: Curve, *, point: int = 0, num_points: int = 1001) -> Farthest:
    """argmax_t ||w(t) - w_j|| over equally spaced t's, for control point j.

    Args:
        curve: Any curve.
        point: Index j of the control point: 0 for the start, -1 for the end.
        num_points: Number of t's.

    Returns:
        The t and the distance.

    Example:
        >>> from mcjax.curves import Bezier
        >>> line = Bezier.connect({"w": jnp.zeros(4)}, {"w": jnp.ones(4)})
        >>> farthest_point(line, point=-1).t
        Array(0., dtype=float32)
    """
    ts = jnp.linspace(0, 1, num_points)
    d = distances(curve, ts, point)
    return Farthest(ts[d.argmax()], d.max())


def path_mean(values: jax.typing.ArrayLike, lengths: jax.typing.ArrayLike) -> jax.Array:
    """Mean of a quantity over arc length: sum_i (v_i + v_{i-1})/2 l_i / sum_i l_i.

    Args:
        values: v at each t, [T].
        lengths: Lengths between consecutive t's, [T - 1].

    Returns:
        A scalar in the units of v.

    Source: Garipov et al. 2018, equation 1, by the trapezoid rule.
    """
    v, dl = jnp.asarray(values), jnp.asarray(lengths)
    return ((v[1:] + v[:-1]) / 2 * dl).sum() / dl.sum()
