"""Trigger forms beside closed forms, and what every form must hold to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import all_but

from mcjax.core.errors import UserError
from mcjax.repair.evidence.forms import FORMS, generated, get

SHAPE = (8, 6, 3)
X = jnp.asarray(np.random.default_rng(0).random((5, *SHAPE)), jnp.float32)


def started(name, seed=0):
    return FORMS[name].start(jax.random.key(seed), SHAPE)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_starts_small_and_stays_in_range(name):
    form = FORMS[name]
    q = started(name)
    assert form.size(q, X) <= 1.1 * form.natural(SHAPE)
    # Large in the form's own sense: a mask that covers, a pattern that shows.
    large = jax.tree.map(lambda v: 50 * jnp.abs(v), q)
    stamped = form.stamp(large, X)
    assert stamped.shape == X.shape
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert not np.allclose(stamped, X)
    for one, x in zip(stamped, X, strict=True):
        np.testing.assert_allclose(form.stamp(large, x), one, atol=1e-6)


@pytest.mark.parametrize("name", all_but(set(FORMS) - {"generated"}, FORMS))
def test_gradients_at_the_start_are_finite_and_reach_every_parameter(name):
    form = FORMS[name]

    def loss(q):
        return (form.stamp(q, X) * X).sum() + form.size(q, X)

    zero = jax.tree.map(jnp.zeros_like, started(name))
    for q in (started(name), zero):
        for gradient in jax.tree.leaves(jax.grad(loss)(q)):
            assert np.isfinite(gradient).all()
    assert all(np.any(g != 0) for g in jax.tree.leaves(jax.grad(loss)(started(name))))


def test_a_patch_replaces_what_its_mask_covers():
    mask = jnp.full((8, 6, 1), -50.0).at[2, 3].set(50.0)
    q = {"mask": mask, "pattern": jnp.full(SHAPE, 50.0)}
    expected = np.array(X)
    expected[:, 2, 3] = 1
    np.testing.assert_allclose(FORMS["patch"].stamp(q, X), expected, atol=1e-6)
    assert FORMS["patch"].size(q, X) == pytest.approx(1)


def test_a_pattern_is_added_and_clipped():
    p = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    stamped = FORMS["pattern"].stamp({"pattern": jnp.asarray(p)}, X)
    np.testing.assert_allclose(stamped, np.clip(np.asarray(X) + p, 0, 1), atol=1e-6)
    size = FORMS["pattern"].size({"pattern": jnp.asarray(p)}, X)
    assert size == pytest.approx(np.linalg.norm(p), rel=1e-5)


def test_a_constant_grid_is_a_constant_shift():
    q = {"grid": jnp.full((7, 6, 3), 0.25)}
    stamped = FORMS["smooth"].stamp(q, X)
    np.testing.assert_allclose(stamped, np.clip(np.asarray(X) + 0.25, 0, 1), atol=1e-5)
    assert FORMS["smooth"].size(q, X) == pytest.approx(0.25 * np.sqrt(8 * 6 * 3), rel=1e-4)


def test_a_warp_by_whole_pixels_moves_the_image():
    q = {"shift": jnp.zeros((4, 4, 2)).at[..., 0].set(1.0)}
    stamped = FORMS["warp"].stamp(q, X)
    expected = np.concatenate([X[:, 1:], X[:, -1:]], axis=1)  # the last row is repeated
    np.testing.assert_allclose(stamped, expected, atol=1e-5)
    assert FORMS["warp"].size(q, X) == pytest.approx(1, rel=1e-4)
    still = FORMS["warp"].stamp({"shift": jnp.zeros((4, 4, 2))}, X)
    np.testing.assert_array_equal(still, X)


def test_a_generator_of_zero_kernels_adds_its_bias():
    q = jax.tree.map(jnp.zeros_like, started("generated"))
    q["up"]["bias"] = jnp.full(3, 0.3)
    stamped = FORMS["generated"].stamp(q, X)
    np.testing.assert_allclose(stamped, np.clip(np.asarray(X) + np.tanh(0.3), 0, 1), atol=1e-6)
    expected = np.tanh(0.3) * np.sqrt(8 * 6 * 3)
    assert FORMS["generated"].size(q, X) == pytest.approx(expected, rel=1e-5)


def test_generated_patterns_differ_from_image_to_image():
    q = started("generated")
    patterns = np.asarray(generated.pattern(q, X))
    assert np.abs(patterns[0] - patterns[1]).max() > 0.1 * np.abs(patterns[0]).max()
    norms = np.sqrt((patterns.astype(np.float64) ** 2).sum((1, 2, 3)))
    assert FORMS["generated"].size(q, X) == pytest.approx(norms.mean(), rel=1e-3)


def test_an_unknown_form_is_named():
    with pytest.raises(UserError, match="unknown form of triggers 'wrap'; use patch"):
        get("wrap")
