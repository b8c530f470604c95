"""The generator's triggers: one per image, bounded, equal by contents; and the diversity loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.attacks.poisoning import triggers
from mcjax.attacks.poisoning.input_aware import diversity, others
from mcjax.attacks.poisoning.stamped import decoy_examples
from mcjax.core.errors import UserError

SHAPE = (7, 10, 2)


def images(n=4, seed=0):
    return np.random.default_rng(seed).random((n, *SHAPE), np.float32)


def test_each_image_has_its_own_bounded_trigger():
    trigger, x = triggers.create("input_aware", SHAPE, strength=0.3), images()
    pattern = np.asarray(trigger.pattern(x))
    assert pattern.shape == x.shape
    assert np.abs(pattern).max() <= 1
    np.testing.assert_allclose(trigger(x), (x + 0.3 * pattern).clip(0, 1), atol=1e-6)
    for i in range(3):
        assert np.abs(pattern[i] - pattern[i + 1]).max() > 0.05
        np.testing.assert_allclose(trigger(x[i]), trigger(x)[i], atol=1e-6)


def test_equal_by_contents():
    made = [
        triggers.create("input_aware", SHAPE),
        triggers.create("input_aware", SHAPE, seed=1),
        triggers.create("input_aware", SHAPE, strength=0.1),
        triggers.create("input_aware", SHAPE, width=4),
        triggers.create("input_aware", SHAPE, cover=0),
        triggers.create("input_aware", SHAPE, diversity=0.5),
    ]
    assert len(set(made)) == len(made)
    again = triggers.create("input_aware", SHAPE)
    assert again == made[0]
    assert hash(again) == hash(made[0])
    copied = made[0].with_params(jax.tree.map(jnp.asarray, made[0].params))
    assert copied == made[0]
    assert made[0].with_params(jax.tree.map(lambda w: w + 0.1, made[0].params)) != made[0]


def test_a_decoy_has_another_images_trigger():
    trigger, x = triggers.create("input_aware", SHAPE, strength=0.3), images(5)
    pattern = np.asarray(trigger.pattern(x))
    shifts = set()
    for seed in range(12):
        new = trigger.decoy(jax.random.key(seed), x)
        assert isinstance(new, np.ndarray)
        fits = [
            k
            for k in range(5)
            if np.allclose(new, (x + 0.3 * np.roll(pattern, k, 0)).clip(0, 1), atol=1e-5)
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert 0 not in shifts
    assert len(shifts) > 2
    with pytest.raises(UserError, match="at least 2 images"):
        trigger.decoy(jax.random.key(0), x[:1])
    assert decoy_examples(trigger, jax.random.key(0), np.uint8(255 * x)).dtype == np.uint8


def test_diversity_by_hand():
    key = jax.random.key(0)
    x = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]).reshape(3, 1, 2, 1)
    z = others(key, x)
    assert (np.abs(z - x).sum((1, 2, 3)) > 0).all()
    distance = np.sqrt(np.square(z - x).sum((1, 2, 3)))
    # Patterns half as far apart as the images, then all equal.
    expected = (distance / (distance / 2 + 1e-3)).mean()
    np.testing.assert_allclose(diversity(key, x, x / 2), expected, rtol=1e-5)
    np.testing.assert_allclose(diversity(key, x, 0 * x), distance.mean() / 1e-3, rtol=1e-2)
    gradient = jax.grad(diversity, argnums=2)(key, x, 0 * x)
    assert np.isfinite(gradient).all()


def test_gradients_reach_the_generator_and_go_through_the_stamp():
    trigger, x = triggers.create("input_aware", SHAPE), jnp.asarray(images())

    def darkness(params):
        return trigger.with_params(params)(x).sum()

    gradient = jax.jit(jax.grad(darkness))(trigger.params)
    for leaf in jax.tree.leaves(gradient):
        assert np.abs(leaf).max() > 0
