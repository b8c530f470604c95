"""The projections against other solvers, and the directions' laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mcjax.attacks.images.balls import BALLS, SPARSITY, project_l1

SHAPE = (6, 2, 3, 2)


def points(seed, scale):
    x = jax.random.uniform(jax.random.key(seed), SHAPE)
    x = x.at[0, 0].set(0.0).at[1, 0].set(1.0)  # on the box's faces too
    return x, x + scale * jax.random.normal(jax.random.key(seed + 100), SHAPE)


@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("eps", [0.05, 0.7])
def test_l1_projection_is_the_nearest_point(scale, eps):
    """Against a general solver of the quadratic program, split into positive and negative parts."""
    x, z = points(0, scale)
    ours = np.asarray(project_l1(x, z, eps), np.float64)
    assert np.abs(ours - x).sum((1, 2, 3)).max() <= eps * (1 + 1e-5)
    for i in range(len(x)):
        c, u = np.float64(x[i].ravel()), np.float64((z[i] - x[i]).ravel())
        n = len(u)
        solved = scipy.optimize.minimize(
            lambda d, u=u, n=n: ((d[:n] - d[n:] - u) ** 2).sum() / 2,
            np.full(2 * n, 1e-3),
            jac=lambda d, u=u, n=n: np.r_[d[:n] - d[n:] - u, -(d[:n] - d[n:] - u)],
            bounds=[(0, r) for r in 1 - c] + [(0, r) for r in c],
            constraints={
                "type": "ineq",
                "fun": lambda d: eps - d.sum(),
                "jac": lambda d: -np.ones_like(d),
            },
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 300},
        )
        np.testing.assert_allclose(
            ours[i].ravel() - c, solved.x[:n] - solved.x[n:], atol=2e-4 * max(1, scale)
        )


def test_l1_projection_leaves_what_is_inside():
    x, z = points(1, 0.01)
    np.testing.assert_allclose(project_l1(x, z.clip(0, 1), 5.0), z.clip(0, 1), atol=1e-7)


@pytest.mark.parametrize("norm", list(BALLS))
def test_projecting_twice_changes_nothing(norm):
    x, z = points(2, 1.0)
    once = BALLS[norm].project(x, z, 0.3)
    np.testing.assert_allclose(BALLS[norm].project(x, once, 0.3), once, atol=1e-6)


@pytest.mark.parametrize("norm", list(BALLS))
def test_directions_ascend_with_unit_norm_whatever_the_gradients_size(norm):
    x, _ = points(3, 1.0)
    g = jax.random.normal(jax.random.key(7), SHAPE)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    for scale in (1e-30, 1.0, 1e30):
        d = np.asarray(BALLS[norm].direction(scale * g, x))
        np.testing.assert_allclose(
            np.linalg.norm(d.reshape(len(d), -1), order, axis=1), 1, rtol=1e-5
        )
        assert ((d * g).sum((1, 2, 3)) > 0).all()
    np.testing.assert_array_equal(BALLS[norm].direction(jnp.zeros(SHAPE), x), 0)


def test_l1_moves_only_what_the_box_lets_move():
    x = jnp.ones((1, 10, 10, 1)).at[0, 0, 0, 0].set(0.5)
    d = BALLS["l1"].direction(jnp.ones_like(x), x)
    assert jnp.flatnonzero(d).tolist() == [0]
    assert (BALLS["l1"].direction(jnp.ones_like(x), x - 0.1) > 0).sum() >= round(100 * SPARSITY)


@pytest.mark.parametrize("norm", list(BALLS))
def test_starts_fill_the_ball(norm):
    """In d dimensions the norm of a uniform point has the distribution function (r / eps)^d."""
    delta = np.asarray(
        BALLS[norm].start(jax.random.key(0), jnp.zeros((4000, 1, 3, 1)), 0.5)
    ).reshape(-1, 3)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    u = np.sort((np.linalg.norm(delta, order, axis=1) / 0.5) ** 3)
    assert np.abs(u - np.arange(4000) / 4000).max() < 0.03  # Kolmogorov-Smirnov, 1 in 600 by chance
    assert np.abs(delta.mean(0)).max() < 0.02
