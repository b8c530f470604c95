"""Steps to a hyperplane against general solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mcjax.attacks.images.hyperplane import step_to_hyperplane

SHAPE = (12, 2, 2, 2)
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def problem(seed=0):
    """Hyperplanes on both sides; some so far away that the box is in the way."""
    w = jax.random.normal(jax.random.key(seed), SHAPE)
    x = jax.random.uniform(jax.random.key(seed + 1), SHAPE).at[0, 0].set(0.0).at[1, 0].set(1.0)
    c = jnp.linspace(-2.5, 2.5, SHAPE[0])
    return w, c, x


def solved(w, c, x, norm):
    """The norm of the shortest step, by linear or quadratic programming; None if there is none."""
    n = len(w)
    if norm == "l2":
        found = scipy.optimize.minimize(
            lambda d: (d**2).sum(), np.zeros(n), jac=lambda d: 2 * d, method="SLSQP",
            bounds=list(zip(-x, 1 - x, strict=True)), options={"ftol": 1e-14, "maxiter": 500},
            constraints={"type": "eq", "fun": lambda d: w @ d - c, "jac": lambda d: w},
        )  # fmt: skip
        return np.sqrt(found.fun) if found.success else None
    if norm == "linf":  # min tau, |d_i| <= tau
        ones, eye = np.ones((n, 1)), np.eye(n)
        found = scipy.optimize.linprog(
            np.r_[np.zeros(n), 1], A_ub=np.block([[eye, -ones], [-eye, -ones]]), b_ub=np.zeros(2 * n),
            A_eq=np.r_[w, 0][None], b_eq=[c], bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
        )  # fmt: skip
    else:
        found = scipy.optimize.linprog(
            np.ones(2 * n),
            A_eq=np.r_[w, -w][None],
            b_eq=[c],
            bounds=[(0, r) for r in np.r_[1 - x, x]],
        )
    return found.fun if found.status == 0 else None


@pytest.mark.parametrize("norm", list(ORDER))
def test_the_step_is_the_shortest_that_reaches_the_plane(norm):
    w, c, x = problem()
    delta = np.asarray(step_to_hyperplane(w, c, x, norm), np.float64).reshape(len(x), -1)
    unreached = 0
    for i in range(len(x)):
        own, center = np.float64(w[i].ravel()), np.float64(x[i].ravel())
        shortest = solved(own, float(c[i]), center, norm)
        if shortest is None:  # every entry goes as far as the box lets it
            unreached += 1
            corner = np.where(own * float(c[i]) > 0, 1 - center, -center)
            np.testing.assert_allclose(delta[i], corner, atol=1e-6)
        else:
            assert delta[i] @ own == pytest.approx(float(c[i]), abs=1e-5)
            assert np.linalg.norm(delta[i], ORDER[norm]) == pytest.approx(shortest, rel=1e-4)
        assert (center + delta[i] >= -1e-7).all()
        assert (center + delta[i] <= 1 + 1e-7).all()
    assert 0 < unreached < len(x)


@pytest.mark.parametrize("norm", list(ORDER))
@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e4, 1e30])
def test_a_factor_on_both_sides_changes_nothing(norm, factor):
    w, c, x = problem()
    c = 0.3 * c
    np.testing.assert_allclose(
        step_to_hyperplane(factor * w, factor * c, x, norm),
        step_to_hyperplane(w, c, x, norm),
        atol=2e-5,
    )


@pytest.mark.parametrize("norm", list(ORDER))
def test_without_a_normal_vector_nothing_moves(norm):
    _, c, x = problem()
    np.testing.assert_array_equal(step_to_hyperplane(jnp.zeros(SHAPE), c, x, norm), 0)
    w = jnp.zeros(SHAPE).at[:, 0, 0, 0].set(1.0)
    np.testing.assert_array_equal(step_to_hyperplane(w, 0 * c, x, norm), 0)
