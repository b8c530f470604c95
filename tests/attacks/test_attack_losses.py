"""Attack losses against their definitions in float64, and where networks are very sure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.attacks.attack_losses import (
    confident_cross_entropy,
    difference_of_logits_ratio,
    kl,
    log_cross_entropy,
    log_kl,
    log_odds,
    margin,
)

Z = np.random.default_rng(0).normal(size=(50, 5)) * 3
Y = np.arange(50) % 5


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.accelerator
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


@pytest.mark.accelerator
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("lead", [0.0, 5.0, 20.0, 60.0])
def test_derivatives_stay_exact_however_sure_the_network(lead, label):
    """Gradient p - e_y and Hessian diag p - p p^T, with the other classes' p known exactly.

    Class 0 leads: the network is sure of the label (0), or of another class (1).
    """
    z = np.array([lead, 0.3, -0.5, 0.1])
    e = np.exp(z[1:] - lead)
    p = e / (1 + e.sum())
    rest = p.sum()
    gradient = np.r_[-rest, p] if label == 0 else np.r_[1 - rest, p] - np.eye(4)[1]
    hessian = np.zeros((4, 4))
    hessian[1:, 1:] = np.diag(p) - np.outer(p, p)
    hessian[0, 1:] = hessian[1:, 0] = -p * (1 - rest)
    hessian[0, 0] = rest * (1 - rest)

    def f(z):
        return confident_cross_entropy(z[None], jnp.array([label]))[0]

    np.testing.assert_allclose(
        jax.jit(jax.grad(f))(jnp.float32(z)),
        gradient,
        rtol=1e-4,
        atol=1e-5 * np.abs(gradient).max(),
    )
    found = jax.jit(jax.hessian(f))(jnp.float32(z))
    np.testing.assert_allclose(found, hessian, atol=1e-5 * np.abs(hessian).max())


@pytest.mark.parametrize("factor", [1.0, 100.0, 1e4])
def test_log_odds_rank_and_climb_as_the_cross_entropy_without_saturating(factor):
    z = factor * Z
    own = np.arange(5)[None] == Y[:, None]
    gaps = np.where(own, -np.inf, z - z[own][:, None])
    top = gaps.max(1)
    expected = top + np.log(np.exp(gaps - top[:, None]).sum(1))
    np.testing.assert_allclose(log_odds(jnp.float32(z), Y), expected, rtol=1e-5, atol=1e-5 * factor)
    climb = jax.jit(jax.grad(lambda z: log_odds(z, Y).sum()))(jnp.float32(z))
    others = np.exp(gaps - expected[:, None])
    np.testing.assert_allclose(climb, others - own, atol=1e-3)
    if factor == 1:  # the cross-entropy's own direction: its gradient over 1 - p_y
        gradient = jax.grad(lambda z: confident_cross_entropy(z, Y).sum())(jnp.float32(z))
        np.testing.assert_allclose(
            gradient, climb * (1 - softmax(z)[own])[:, None], rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("factor", [1.0, 10.0, 100.0])
def test_log_cross_entropy_and_its_gradient_in_both_branches(factor):
    z = np.longdouble(np.float32(factor * Z))
    own = np.arange(5)[None] == Y[:, None]
    rest = np.where(own, 0, np.exp(z - z[own][:, None])).sum(1)
    value, gradient = jax.jit(
        jax.vmap(jax.value_and_grad(lambda z, y: log_cross_entropy(z[None], y[None])[0]))
    )(jnp.float32(z), jnp.asarray(Y))
    np.testing.assert_allclose(value, np.float64(np.log(np.log1p(rest))), rtol=1e-5, atol=1e-5)
    slope = np.where(own, 0, np.exp(z - z[own][:, None])) / ((1 + rest) * np.log1p(rest))[:, None]
    slope[own] = -slope.sum(1)
    np.testing.assert_allclose(gradient, np.float64(slope), rtol=1e-4, atol=1e-4)


@pytest.mark.accelerator
@pytest.mark.parametrize(
    ("factor", "apart"), [(1, 1e-3), (1, 0.3), (1, 3.0), (30, 0.3), (30, 3.0), (1000, 3.0)]
)
def test_log_kl_and_its_direction_wherever_the_kl_underflows(factor, apart):
    """By the definition in numbers of 15 bits of exponent, where 1e-4000 is one."""
    z = np.float32(factor * Z)
    z_adv = z + np.float32(np.random.default_rng(1).normal(size=Z.shape) * apart)

    def log_softmax(z):
        z = z - z.max(1, keepdims=True)
        rest = np.where(z == 0, 0, np.exp(z)).sum(1, keepdims=True)
        return z - np.log1p(rest)

    log_p, log_q = (log_softmax(np.longdouble(v)) for v in (z, z_adv))
    r = log_q - log_p
    expected = np.log((np.exp(log_p) * (np.expm1(r) - r)).sum(1))
    visible = np.isfinite(expected) & (expected > -11000)
    assert visible.sum() >= 25
    value, gradient = jax.jit(
        jax.vmap(jax.value_and_grad(lambda a, b: log_kl(a[None], b[None])[0], 1))
    )(jnp.float32(z), jnp.float32(z_adv))
    np.testing.assert_allclose(
        value[visible], np.float64(expected[visible]), rtol=2e-4, atol=2e-4 * factor / apart
    )
    direction = np.exp(log_q) - np.exp(log_p)
    direction[np.arange(50), z.argmax(1)] = 0
    direction[np.arange(50), z.argmax(1)] = -direction.sum(1)
    ours = np.float64(gradient)[visible]
    theirs = np.float64((direction / np.abs(direction).max(1, keepdims=True))[visible])
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 1 - 1e-3
    if apart == 3.0:  # closer ones cancel in the definition
        definition = (np.exp(log_p) * (log_p - log_q)).sum(1)[visible]
        np.testing.assert_allclose(
            value[visible], np.float64(np.log(definition)), rtol=2e-4, atol=1e-4 * factor
        )


def test_log_kl_of_equal_logits_has_no_direction():
    z = jnp.float32([[1.0, 2.0, 300.0], [0.0, 0.0, 0.0]])
    value, gradient = jax.jit(jax.value_and_grad(lambda b: log_kl(z, b).sum()))(z)
    assert value == -np.inf
    assert not gradient.any()
