"""The plane holds its three points, at their own distances."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mcjax.curves import Bezier
from mcjax.curves import plane as planes


def random_curve():
    w = [{"w": jax.random.normal(jax.random.key(i), (20,))} for i in range(3)]
    return Bezier(w[0], (w[1],), w[2])


def test_control_points_are_in_the_plane():
    curve = random_curve()
    plane = planes.through(curve)
    for w in (*curve.points, curve(0.3)):
        np.testing.assert_allclose(plane(plane.coordinates(w))["w"], w["w"], atol=1e-5)


def test_distances_are_kept():
    curve = random_curve()
    plane = planes.through(curve)
    a, b = (plane.coordinates(curve(t)) for t in (0.2, 0.8))
    explicit = optax.tree.norm(optax.tree.sub(curve(0.2), curve(0.8)))
    np.testing.assert_allclose(jnp.linalg.norm(a - b), explicit, rtol=1e-5)


def test_straight_line_spans_no_plane_but_gives_no_nan():
    curve = Bezier.connect({"w": jnp.zeros(3)}, {"w": jnp.ones(3)})
    assert jnp.isfinite(planes.through(curve)([0.5, 1.0])["w"]).all()


def test_grid_holds_every_control_point():
    curve = random_curve()
    plane = planes.through(curve)
    points = planes.grid(plane, curve, num_points=5)
    assert points.xy.shape == (25, 2)
    np.testing.assert_array_equal(points.xy[1], [points.x[1], points.y[0]])
    for w in curve.points:
        x, y = plane.coordinates(w)
        assert points.x[0] < x < points.x[-1]
        assert points.y[0] < y < points.y[-1]
