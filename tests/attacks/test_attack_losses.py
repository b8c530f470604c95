"""Attack losses against their definitions in float64, and where networks are very sure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.attacks.attack_losses import (
    confident_cross_entropy,
    difference_of_logits_ratio,
    kl,
    margin,
)

Z = np.random.default_rng(0).normal(size=(50, 5)) * 3
Y = np.arange(50) % 5


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_against_plain_definitions():
    own = np.arange(5)[None] == Y[:, None]
    others = np.where(own, -np.inf, Z).max(1)
    z_y = Z[np.arange(50), Y]
    ordered = -np.sort(-Z, axis=1)
    np.testing.assert_allclose(
        confident_cross_entropy(jnp.float32(Z), Y), -np.log(softmax(Z)[own]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(margin(jnp.float32(Z), Y), others - z_y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        difference_of_logits_ratio(jnp.float32(Z), Y),
        (others - z_y) / (ordered[:, 0] - ordered[:, 2]),
        rtol=1e-5,
    )
    p, q = softmax(Z), softmax(Z[::-1])
    expected = (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(kl(jnp.float32(Z), jnp.float32(Z[::-1])), expected, rtol=1e-4)


def test_dlr_knows_neither_scale_nor_shift():
    a = difference_of_logits_ratio(jnp.float32(Z), Y)
    b = difference_of_logits_ratio(jnp.float32(100 * Z + 3), Y)
    np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize("lead", [0.0, 5.0, 20.0, 60.0])
def test_derivatives_stay_exact_however_sure_the_network(lead):
    """Gradient p - e_y and Hessian diag p - p p^T, with the other classes' p known exactly."""
    z = np.array([lead, 0.3, -0.5, 0.1])
    e = np.exp(z[1:] - lead)
    p = e / (1 + e.sum())
    rest = p.sum()
    gradient = np.r_[-rest, p]
    hessian = -np.outer(gradient, gradient)  # in terms of the others, and what row sums of 0 give
    hessian[1:, 1:] = np.diag(p) - np.outer(p, p)
    hessian[0, 1:] = hessian[1:, 0] = -p * (1 - rest)
    hessian[0, 0] = rest * (1 - rest)
    y = jnp.array([0])

    def f(z):
        return confident_cross_entropy(z[None], y)[0]

    scale = np.abs(gradient).max()
    np.testing.assert_allclose(jax.grad(f)(jnp.float32(z)), gradient, rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(jax.hessian(f)(jnp.float32(z)), hessian, atol=1e-5 * scale)
