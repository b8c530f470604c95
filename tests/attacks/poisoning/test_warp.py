"""The warp against a plain bilinear sampler and closed forms, and its decoys."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.attacks.poisoning import triggers
from mcjax.attacks.poisoning.stamped import decoy_examples
from mcjax.attacks.poisoning.warp import Warp, bilinear


def images(shape, n=3, seed=0):
    return np.random.default_rng(seed).random((n, *shape), np.float32)


def sampled(image, row, column):
    """One pixel by hand, from the definition as a sum over all pixels of the image."""
    total = 0.0
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            weight = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            total = total + weight * image[i, j].astype(np.float64)
    return total


@pytest.mark.parametrize("shape", [(7, 7, 1), (5, 8, 3)])
def test_wanet_is_plain_bilinear_sampling(shape):
    trigger = triggers.create("wanet", shape, strength=3.0)
    x = images(shape, 2)
    new = trigger(x)
    for n in range(2):
        for i in range(shape[0]):
            for j in range(shape[1]):
                expected = sampled(x[n], trigger.rows[i, j], trigger.columns[i, j])
                np.testing.assert_allclose(new[n, i, j], expected, atol=1e-5)
    assert np.abs(new - x).max() > 0.1


def test_the_positions_are_those_of_the_formula():
    """In [-1, 1]: p + s f(p) / side, with |f| of mean 1 on the grid; a grid of the image's size
    is not enlarged, so f can be read off."""
    small, large = (triggers.create("wanet", (8, 8, 1), grid=8, strength=s) for s in (0.01, 1.0))
    identity = np.linspace(-1, 1, 8)

    def offsets(trigger, strength):
        rows, columns = (2 * p / 7 - 1 for p in (trigger.rows, trigger.columns))
        return np.stack([rows - identity[:, None], columns - identity], -1) * 8 / strength

    f = offsets(small, 0.01)[1:-1, 1:-1]  # the border is clipped
    assert np.abs(f).mean() == pytest.approx(1, abs=0.15)
    assert np.abs(f).max() < 2.2  # uniform numbers, divided by their mean of about a half
    np.testing.assert_allclose(offsets(large, 1.0)[3:5, 3:5], f[2:4, 2:4], atol=2e-3)
    assert large.rows.min() >= 0
    assert large.columns.max() <= 7


def test_a_small_grid_gives_a_smooth_field():
    trigger = triggers.create("wanet", (28, 28, 1))
    rows = trigger.rows - np.arange(28)[:, None]
    assert 0.1 < np.abs(rows).mean() < 0.5  # about strength / 2 pixels
    assert np.abs(np.diff(rows[2:-2], axis=1)).max() < 0.15


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 8, 3)])
def test_no_strength_changes_nothing(shape):
    trigger = triggers.create("wanet", shape, strength=0)
    x = images(shape)
    np.testing.assert_array_equal(trigger(x), x)
    np.testing.assert_allclose(trigger.decoy(jax.random.key(0), x), x, atol=1e-6)


def test_a_constant_shift_by_whole_and_by_half_pixels():
    x = images((4, 6, 2))
    rows, columns = np.meshgrid(np.arange(4), np.arange(6), indexing="ij")
    down = Warp("shift", rows - 1, columns, 2)
    np.testing.assert_allclose(down(x), np.concatenate([x[:, :1], x[:, :-1]], 1), atol=1e-6)
    half = Warp("shift", rows, columns + 0.5, 2)(x)
    np.testing.assert_allclose(half[:, :, :-1], (x[:, :, :-1] + x[:, :, 1:]) / 2, atol=1e-6)
    np.testing.assert_array_equal(half[:, :, -1], x[:, :, -1])  # clipped to the border


def test_a_ramp_is_shifted_by_the_field():
    """Bilinear interpolation is exact for a linear image: x'[i, j] = the position itself."""
    trigger = triggers.create("wanet", (9, 9, 1), strength=2.0)
    ramp = np.broadcast_to(np.arange(9.0)[:, None, None] / 8, (9, 9, 1))
    np.testing.assert_allclose(8 * trigger(ramp)[..., 0], trigger.rows, atol=1e-5)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_batch_dimensions_and_kinds(lead):
    trigger = triggers.create("wanet", (6, 5, 3), strength=2.0)
    x = np.random.default_rng(0).random((*lead, 6, 5, 3), np.float32)
    new = trigger(x)
    assert new.shape == x.shape
    np.testing.assert_allclose(jax.jit(trigger)(jnp.asarray(x)), new, atol=1e-6)
    flat = trigger(x.reshape(-1, 6, 5, 3))
    np.testing.assert_array_equal(flat.reshape(x.shape), new)


def test_one_pixel_stays():
    x = images((1, 1, 1))
    np.testing.assert_array_equal(triggers.create("wanet", (1, 1, 1), grid=1)(x), x)


def test_equal_by_contents_and_different_by_seed_and_options():
    made = [
        triggers.create("wanet", (8, 8, 1)),
        triggers.create("wanet", (8, 8, 1), seed=1),
        triggers.create("wanet", (8, 8, 1), grid=5),
        triggers.create("wanet", (8, 8, 1), strength=0.6),
        triggers.create("wanet", (8, 8, 1), cover=0),
        triggers.create("wanet", (8, 8, 3)),
        triggers.create("square", (8, 8, 1)),
    ]
    assert len(set(made)) == len(made)
    again = triggers.create("wanet", (8, 8, 1), grid=4, strength=0.5, cover=0.2, seed=0)
    assert again == made[0]
    assert hash(again) == hash(made[0])


def test_bytes_are_rounded():
    trigger = triggers.create("wanet", (8, 8, 1), strength=2.0)
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    exact = 255 * trigger(image / 255)
    new = triggers.stamp_examples(trigger, image)
    assert new.dtype == np.uint8
    assert np.abs(new - exact).max() <= 0.5 + 1e-3


def test_decoys_move_each_position_of_each_image_by_their_noise():
    trigger = triggers.create("wanet", (9, 9, 1), strength=0.5)
    ramp = np.broadcast_to(np.arange(9.0, dtype=np.float32)[:, None, None] / 8, (500, 9, 9, 1))
    rows = 8 * trigger.decoy(jax.random.key(0), ramp)[..., 0]
    moved = (rows - trigger.rows)[:, 2:-2]
    limit = 2 * 0.5 / 9 * 4  # 2 strength / side, of half an image
    assert np.abs(moved).max() <= limit + 1e-4
    assert np.abs(moved).max() > 0.98 * limit
    assert moved.std() == pytest.approx(limit / math.sqrt(3), rel=0.03)
    assert np.abs(moved.mean(0)).max() < 6 * limit / math.sqrt(3 * 500)
    assert np.abs(np.corrcoef(moved[:, 0, 0], moved[:, 0, 1])[0, 1]) < 0.2


def test_decoys_of_bytes_are_by_key():
    trigger = triggers.create("wanet", (8, 8, 3))
    image = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    a, b, c = (decoy_examples(trigger, jax.random.key(k), image) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any((1, 2, 3)).all()
    assert a.dtype == np.uint8


def test_sampling_is_differentiable_in_the_image():
    x = jnp.asarray(images((4, 4, 1), 1))
    rows, columns = jnp.full((2, 2), 1.25), jnp.full((2, 2), 2.0)
    gradient = jax.grad(lambda x: bilinear(x, rows, columns).sum())(x)[0, :, :, 0]
    expected = np.zeros((4, 4))
    expected[1, 2], expected[2, 2] = 3, 1
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
