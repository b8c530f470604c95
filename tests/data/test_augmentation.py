import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mcjax.data import augmentation
from mcjax.data.augmentation import random_flip_crop
from mcjax.errors import UserError

# No two pixels of these images are equal, and none is 0, so each place tells where it came from.
SIZE, HEIGHT, WIDTH = 64, 5, 7
IMAGE = 1 + np.arange(SIZE * HEIGHT * WIDTH * 3, dtype=np.float32).reshape(SIZE, HEIGHT, WIDTH, 3)


def numpy_flip_crop(image, flipped, u, v, padding):
    """One image, by the plain recipe: flip, pad, cut out."""
    image = image[:, ::-1] if flipped else image
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return padded[u : u + HEIGHT, v : v + WIDTH]


def recover(image, out, padding):
    """The (flip, u, v) of the recipe that give `out`; must be exactly one."""
    found = [
        (f, u, v)
        for f in (False, True)
        for u in range(2 * padding + 1)
        for v in range(2 * padding + 1)
        if np.array_equal(numpy_flip_crop(image, f, u, v, padding), out)
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("flip", [True, False])
def test_each_image_is_a_flip_and_crop_of_itself(padding, flip):
    out = np.asarray(random_flip_crop(jax.random.key(0), IMAGE, flip=flip, padding=padding))
    draws = np.array([recover(x, y, padding) for x, y in zip(IMAGE, out, strict=True)])
    assert set(draws[:, 0]) == ({0, 1} if flip else {0})
    assert set(draws[:, 1]) == set(draws[:, 2]) == set(range(2 * padding + 1))


def test_flips_and_offsets_are_uniform_and_independent():
    image = np.tile(IMAGE[:1], (4500, 1, 1, 1))
    out = np.asarray(random_flip_crop(jax.random.key(1), image, padding=1))
    patterns, counts = np.unique(out.reshape(len(out), -1), axis=0, return_counts=True)
    assert len(patterns) == 2 * 3 * 3
    expected = 4500 / 18
    assert np.square(counts - expected).sum() / expected < 45  # chi-square, 17 degrees: p = 0.0002


def test_bytes_stay_bytes_and_agree_with_floats():
    image = (IMAGE % 251).astype(np.uint8)
    out = random_flip_crop(jax.random.key(2), image)
    assert out.dtype == jnp.uint8
    same = random_flip_crop(jax.random.key(2), image.astype(np.float32))
    np.testing.assert_array_equal(out, same.astype(np.uint8))


def test_inside_a_scan_it_is_the_same_function():
    keys = jax.random.split(jax.random.key(3), 4)
    _, scanned = lax.scan(lambda _, key: (None, random_flip_crop(key, IMAGE)), None, keys)
    for key, out in zip(keys, scanned, strict=True):
        np.testing.assert_array_equal(random_flip_crop(key, IMAGE), out)
    assert not np.array_equal(scanned[0], scanned[1])


def test_registry():
    key = jax.random.key(4)
    assert augmentation.get("none")(key, IMAGE) is IMAGE
    np.testing.assert_array_equal(
        augmentation.get("flip_crop")(key, IMAGE), random_flip_crop(key, IMAGE)
    )
    np.testing.assert_array_equal(
        augmentation.get("crop")(key, IMAGE), random_flip_crop(key, IMAGE, flip=False)
    )
    with pytest.raises(UserError, match="none, flip_crop, crop"):
        augmentation.get("mixup")
