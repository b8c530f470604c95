"""The plane through start, bend and end of a curve, for plots of the loss surface."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mcjax.curves import Curve
from mcjax.tree import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """w(x, y) = origin + x u + y v, with orthonormal u and v, so plots show true distances.

    Like a curve, a plane is a callable pytree, so `evaluate_path` accepts it with ts [T, 2].

    Args:
        origin: Parameter tree at (0, 0).
        u: Unit tree along x.
        v: Unit tree along y, orthogonal to u.
    """

    origin: PyTree
    u: PyTree
    v: PyTree

    def __call__(self, xy: jax.typing.ArrayLike) -> PyTree:
        """w(x, y), a tree like the origin."""
        x, y = jnp.asarray(xy, jnp.float32)
        return jax.tree.map(lambda o, u, v: o + x * u + y * v, self.origin, self.u, self.v)

    def coordinates(self, w: PyTree) -> jax.Array:
        """(x, y) of w's orthogonal projection onto the plane, [2]."""
        d = jax.tree.map(lambda a, b: a - b, w, self.origin)
        return jnp.stack([jnp.asarray(optax.tree.vdot(d, e)) for e in (self.u, self.v)])


def through(curve: Curve) -> Plane:
    """The plane through the start, the middle bend and the end of a curve.

    u = (w_end - w_start) / |.|, and v is the normalised component of the bend orthogonal to u. A
    straight line spans no plane; v is then zero.

    Args:
        curve: A curve with at least one bend.

    Returns:
        The plane, with the start as its origin and the end on the x axis.

    Example:
        >>> from mcjax.curves import Bezier
        >>> point = lambda x, y: {"w": jnp.array([x, y])}
        >>> plane = through(Bezier(point(0., 0.), (point(1., 3.),), point(2., 0.)))
        >>> plane.coordinates(point(1., 3.))
        Array([1., 3.], dtype=float32)

    Source: Garipov et al. 2018, figure 1.
    """
    bend = curve.bends[len(curve.bends) // 2]
    to_end, to_bend = (jax.tree.map(lambda a, b: a - b, w, curve.start) for w in (curve.end, bend))
    u = optax.tree.scale(1 / optax.tree.norm(to_end), to_end)
    along = optax.tree.vdot(to_bend, u)
    v = jax.tree.map(lambda a, b: a - along * b, to_bend, u)
    across = optax.tree.norm(v)
    v = optax.tree.scale(jnp.where(across > 0, 1 / jnp.where(across > 0, across, 1), 0), v)
    return Plane(curve.start, u, v)


class Grid(NamedTuple):
    """A rectangular grid of points of a plane.

    Attributes:
        x: Coordinates along u, [num_points].
        y: Coordinates along v, [num_points].
        xy: All points in row-major order (x varies fastest), [num_points^2, 2].
    """

    x: jax.Array
    y: jax.Array
    xy: jax.Array


def grid(plane: Plane, curve: Curve, *, num_points: int, margin: float = 0.2) -> Grid:
    """A grid that covers all control points, with a margin on each side.

    Args:
        plane: The plane.
        curve: The curve whose control points the grid covers.
        num_points: Points along each side.
        margin: Space around the control points, as a fraction of their extent.

    Returns:
        The grid.
    """
    corners = jnp.stack([plane.coordinates(w) for w in curve.points])
    low, high = corners.min(0), corners.max(0)
    room = margin * jnp.maximum(high - low, 1e-6)
    low, high = low - room, high + room
    x, y = (jnp.linspace(low[i], high[i], num_points) for i in (0, 1))
    return Grid(x, y, jnp.stack(jnp.meshgrid(x, y), -1).reshape(-1, 2))
