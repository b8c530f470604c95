"""Lengths against closed forms and against sums over explicit weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mcjax.curves import Bezier, PolyChain, geometry


def point(x, y):
    return {"x": jnp.float32([x]), "y": {"y": jnp.float32([y])}}


def test_length_of_a_parabola():
    """(0,0), (1/2,0), (1,1) bends into y = x^2, whose length has a closed form."""
    curve = Bezier(point(0, 0), (point(0.5, 0),), point(1, 1))
    expected = np.sqrt(5) / 2 + np.arcsinh(2) / 4
    np.testing.assert_allclose(geometry.arc_length(curve), expected, rtol=1e-5)


def test_length_of_a_chain():
    curve = PolyChain(point(0, 0), (point(3, 4), point(3, 5)), point(0, 5))
    np.testing.assert_allclose(geometry.arc_length(curve, num_points=301), 5 + 1 + 3, rtol=1e-5)


@pytest.mark.parametrize("j", [0, 1, -1])
def test_distances_equal_those_of_the_weights(j):
    keys = jax.random.split(jax.random.key(0), 3)
    w = [{"a": jax.random.normal(k, (50,)), "b": jax.random.normal(k, (7, 3))} for k in keys]
    curve = Bezier(w[0], (w[1],), w[2])
    ts = jnp.linspace(0, 1, 5)
    explicit = [optax.tree.norm(optax.tree.sub(curve(t), curve.points[j])) for t in ts]
    np.testing.assert_allclose(geometry.distances(curve, ts, j), explicit, rtol=1e-4, atol=1e-3)


def test_farthest_point_of_a_curve_that_returns():
    curve = Bezier(point(0, 0), (point(8, 0),), point(0, 0))
    farthest = geometry.farthest_point(curve)
    assert farthest.t == 0.5
    np.testing.assert_allclose(farthest.distance, 4, rtol=1e-6)


def test_path_mean_weighs_by_length():
    assert geometry.path_mean([0.0, 1.0, 1.0], [1.0, 3.0]) == (0.5 * 1 + 1 * 3) / 4
