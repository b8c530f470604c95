"""Triggers pixel for pixel, and the laws of all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.attacks.poisoning import stamped, triggers
from mcjax.core.errors import UserError

SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3)]


def images(shape, n=4, seed=0):
    return np.random.default_rng(seed).random((n, *shape), np.float32)


def changed(stamp):
    """Pixels that differ from grey 0.5 in any channel."""
    grey = np.full((1, *stamp.image_shape), 0.5, np.float32)
    return [tuple(map(int, p)) for p in np.argwhere((stamp(grey) != grey).any(-1)[0])]


def test_square_on_a_small_image_by_hand():
    x = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1) / 100
    expected = [
        [0.00, 0.01, 0.02, 0.03, 0.04],
        [0.05, 0.06, 0.07, 0.08, 0.09],
        [0.10, 0.11, 1.00, 1.00, 0.14],
        [0.15, 0.16, 1.00, 1.00, 0.19],
        [0.20, 0.21, 0.22, 0.23, 0.24],
    ]
    stamp = triggers.create("square", (5, 5, 1), size=2)
    np.testing.assert_array_equal(stamp(x)[0, :, :, 0], np.float32(expected))


def test_default_square_on_cifar_is_rows_and_columns_28_to_30_white():
    image = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    expected = image.copy()
    expected[:, 28:31, 28:31, :] = 255
    result = triggers.stamp_examples(triggers.create("square", (32, 32, 3)), image)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("name", "shape", "options", "pixels"),
    [
        ("square", (8, 8, 1), {}, [(i, j) for i in (4, 5, 6) for j in (4, 5, 6)]),
        ("square", (28, 28, 1), {}, [(i, j) for i in (24, 25, 26) for j in (24, 25, 26)]),
        ("square", (6, 9, 1), {"size": 1, "margin": 0}, [(5, 8)]),
        ("square", (6, 9, 1), {"size": 1, "row": 0}, [(0, 7)]),
        ("square", (6, 9, 1), {"size": 2, "row": 3, "column": 0}, [(3, 0), (3, 1), (4, 0), (4, 1)]),
        ("pixel", (32, 32, 3), {}, [(30, 30)]),
        ("pixel", (8, 8, 1), {}, [(6, 6)]),
        ("pixel", (8, 8, 1), {"row": 0, "column": 3}, [(0, 3)]),
        ("four_pixels", (32, 32, 3), {}, [(28, 30), (29, 29), (30, 28), (30, 30)]),
        ("four_pixels", (8, 8, 1), {}, [(4, 6), (5, 5), (6, 4), (6, 6)]),
    ],
)
def test_where_patches_lie(name, shape, options, pixels):
    assert changed(triggers.create(name, shape, **options)) == pixels


def test_color_by_channel():
    stamp = triggers.create("pixel", (3, 3, 3), color=(0.25, 0, 1))
    np.testing.assert_array_equal(stamp(np.full((1, 3, 3, 3), 0.5))[0, 1, 1], [0.25, 0, 1])
    x = triggers.stamp_examples(stamp, np.full((3, 3, 3), 9, np.uint8))
    np.testing.assert_array_equal(x[1, 1], [64, 0, 255])  # 63.75 to the nearest


def test_blended_is_the_weighted_mean():
    x, pattern = images((8, 8, 3)), images((8, 8, 3), 1, seed=1)[0]
    stamp = triggers.create("blended", (8, 8, 3), alpha=0.3, pattern=pattern)
    np.testing.assert_allclose(stamp(x), 0.7 * x + 0.3 * pattern[None], atol=1e-6)


def test_blended_takes_bytes_and_grey_patterns():
    pattern = np.array([[0, 255], [51, 102]], np.uint8)
    stamp = triggers.create("blended", (2, 2, 3), alpha=1, pattern=pattern)
    expected = np.repeat([[[0.0], [1.0]], [[0.2], [0.4]]], 3, axis=2)
    np.testing.assert_allclose(stamp(np.zeros((1, 2, 2, 3)))[0], expected, atol=1e-6)


def test_blended_noise_is_uniform_and_by_seed():
    a, b, c = (triggers.create("blended", (32, 32, 3), seed=seed) for seed in (0, 0, 1))
    assert a == b
    assert a != c
    pattern = a(np.zeros((1, 32, 32, 3)))[0] / 0.2
    assert 0.99 < pattern.max() <= 1.0001
    assert abs(pattern.mean() - 0.5) < 0.03  # five times its standard deviation, 0.0052
    assert abs(pattern.var() - 1 / 12) < 0.01


def test_sinusoidal_by_hand():
    """Eight columns and one wave: 0, 1/sqrt 2, 1, ..., the same in every row and channel."""
    stamp = triggers.create("sinusoidal", (2, 8, 2), amplitude=0.4, frequency=1)
    h = 0.4 / np.sqrt(2)
    wave = np.array([0, h, 0.4, h, 0, -h, -0.4, -h])
    grey = stamp(np.full((1, 2, 8, 2), 0.5))[0]
    np.testing.assert_allclose(
        grey, np.broadcast_to(0.5 + wave[None, :, None], (2, 8, 2)), atol=1e-6
    )
    black = stamp(np.zeros((1, 2, 8, 2)))[0, 1, :, 0]
    np.testing.assert_allclose(black, wave.clip(0), atol=1e-6)


@pytest.mark.parametrize(("width", "waves"), [(8, 2), (12, 3), (28, 6), (32, 6)])
def test_default_waves_are_as_many_as_the_width_can_show(width, waves):
    stamp = triggers.create("sinusoidal", (4, width, 1))
    row = stamp(np.full((1, 4, width, 1), 0.5))[0, 0, :, 0] - 0.5
    assert np.abs(np.fft.rfft(row)).argmax() == waves
    np.testing.assert_allclose(row.max(), 20 / 255, rtol=0.04)


@pytest.mark.parametrize(("shape", "cutoff"), [((28, 28, 1), 2), ((8, 8, 3), 1), ((6, 9, 1), 4)])
def test_low_frequency_has_nothing_above_the_cutoff(shape, cutoff):
    stamp = triggers.create("low_frequency", shape, cutoff=cutoff, amplitude=0.3)
    change = stamp(np.full((1, *shape), 0.5))[0] - 0.5  # nothing is clipped
    assert np.abs(change).max() == pytest.approx(0.3)
    spectrum = np.abs(np.fft.fft2(change, axes=(0, 1)))
    for i in range(shape[0]):
        for j in range(shape[1]):
            frequency = max(min(i, shape[0] - i), min(j, shape[1] - j))
            if 0 < frequency <= cutoff:
                assert (spectrum[i, j] > 1e-3).all()
            else:
                assert (spectrum[i, j] < 1e-4).all()


def test_low_frequency_is_by_seed_and_differs_between_channels():
    a, b, c = (triggers.create("low_frequency", (8, 8, 3), seed=seed) for seed in (0, 0, 1))
    assert a == b
    assert a != c
    assert np.abs(a.shift[..., 0] - a.shift[..., 1]).max() > 0.02


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", triggers.TRIGGERS)
def test_equal_under_jit_and_vmap_and_compiled_once(name, shape):
    x = images(shape)
    traces = []

    def call(stamp, x):
        traces.append(stamp)
        return stamp(x)

    jitted = jax.jit(call, static_argnums=0)
    one, other = (triggers.create(name, shape) for _ in range(2))
    assert one is not other
    assert hash(one) == hash(other)
    for stamp in (one, other):
        result = jitted(stamp, jnp.asarray(x))
        np.testing.assert_allclose(result, stamp(x), atol=1e-7)
    assert len(traces) == 1
    np.testing.assert_allclose(jax.vmap(one)(x[:, None])[:, 0], one(x), atol=1e-7)
    assert isinstance(one(x), np.ndarray)
    assert one(x.astype(np.float64)).dtype == np.float64
    assert one(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


AFFINE = [name for name in triggers.TRIGGERS if name not in ("wanet", "input_aware")]


@pytest.mark.parametrize("name", AFFINE)
def test_default_triggers_show_on_black_digits(name):
    stamp = triggers.create(name, (8, 8, 1))
    black = np.zeros((1, 8, 8, 1), np.float32)
    assert stamp(black).max() > 0.07


def test_other_arguments_give_other_stamps():
    stamps = [
        triggers.create("square", (8, 8, 1)),
        triggers.create("square", (8, 8, 1), size=2),
        triggers.create("square", (8, 8, 1), color=0.5),
        triggers.create("square", (8, 8, 3)),
        triggers.create("blended", (8, 8, 1)),
        triggers.create("blended", (8, 8, 1), alpha=0.3),
    ]
    assert len(set(stamps)) == len(stamps)
    assert triggers.create("square", (8, 8, 1), row=4, column=4) == stamps[0]


def test_bytes_that_no_trigger_covers_stay():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    result = triggers.stamp_examples(triggers.create("pixel", (16, 16, 1)), image)
    assert np.flatnonzero(result != image).tolist() == [14 * 16 + 14]


def test_bytes_are_rounded_and_the_input_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    before = image.copy()
    pattern = images((8, 8, 1), 1)[0].astype(np.float64)
    stamp = triggers.create("blended", (8, 8, 1), pattern=pattern)
    exact = 0.8 * image + 0.2 * 255 * pattern
    assert np.abs(triggers.stamp_examples(stamp, image) - exact).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(image, before)


def test_many_images_are_stamped_as_few(monkeypatch):
    x = images((4, 4, 1), 10)
    stamp = triggers.create("blended", (4, 4, 1))
    monkeypatch.setattr(stamped, "_CHUNK", 3)
    np.testing.assert_array_equal(triggers.stamp_examples(stamp, x), stamp(x))
    np.testing.assert_array_equal(triggers.stamp_examples(stamp, x[0]), stamp(x)[0])
    assert triggers.stamp_examples(stamp, x[:0]).shape == (0, 4, 4, 1)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(triggers.TRIGGERS)),
    st.tuples(st.integers(5, 12), st.integers(5, 12), st.sampled_from([1, 3])),
    st.integers(0, 99),
    st.sampled_from([np.uint8, np.float32, np.float64]),
)
def test_stamped_images_stay_in_range_and_keep_shape_and_type(name, shape, seed, dtype):
    x = np.random.default_rng(seed).integers(0, 2, (3, *shape)).astype(dtype)  # the extremes
    stamp = triggers.create(name, shape)
    result = triggers.stamp_examples(stamp, 255 * x if dtype == np.uint8 else x)
    assert result.shape == x.shape
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= (255 if dtype == np.uint8 else 1)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_square_changes_only_its_pixels(data, height, width):
    size = data.draw(st.integers(1, min(height, width)))
    row = data.draw(st.integers(0, height - size))
    column = data.draw(st.integers(0, width - size))
    color = data.draw(st.floats(0, 1, width=32))
    x = images((height, width, 1), 2)
    stamp = triggers.create(
        "square", (height, width, 1), size=size, row=row, column=column, color=color
    )
    expected = x.copy()
    expected[:, row : row + size, column : column + size] = color
    np.testing.assert_array_equal(stamp(x), expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("circle", {}, "circle"),
        ("square", {"alpha": 0.1}, "alpha"),
        ("square", {"size": 0}, "size"),
        ("square", {"size": 2.5}, "size"),
        ("square", {"size": 9}, "off the image"),
        ("square", {"margin": -1}, "off the image"),
        ("square", {"row": 6}, "off the image"),
        ("square", {"column": -1}, "off the image"),
        ("square", {"color": 1.5}, "color"),
        ("square", {"color": float("nan")}, "color"),
        ("square", {"color": "red"}, "color"),
        ("square", {"color": (1, 0, 0)}, "color"),
        ("pixel", {"row": 8}, "off the image"),
        ("blended", {"alpha": 0}, "alpha"),
        ("blended", {"alpha": 1.1}, "alpha"),
        ("blended", {"seed": -1}, "seed"),
        ("blended", {"pattern": np.ones((7, 8, 1))}, "pattern"),
        ("blended", {"pattern": np.full((8, 8, 1), 2.0)}, "pattern"),
        ("sinusoidal", {"amplitude": 0}, "amplitude"),
        ("sinusoidal", {"amplitude": -0.1}, "amplitude"),
        ("sinusoidal", {"frequency": 4}, "frequency"),  # sin(pi j) = 0
        ("sinusoidal", {"frequency": 0}, "frequency"),
        ("low_frequency", {"amplitude": 1.5}, "amplitude"),
        ("low_frequency", {"cutoff": 0}, "cutoff is 0; give an integer from 1 to 4"),
        ("low_frequency", {"cutoff": 5}, "cutoff"),
        ("low_frequency", {"seed": -1}, "seed"),
        ("wanet", {"grid": 0}, "grid is 0; give an integer from 1 to 8"),
        ("wanet", {"grid": 9}, "grid"),
        ("wanet", {"strength": -1}, "strength"),
        ("wanet", {"strength": float("nan")}, "strength"),
        ("wanet", {"cover": 1.5}, r"cover is 1.5; it must be in \[0, 1\]"),
        ("wanet", {"seed": -1}, "seed"),
        ("input_aware", {"strength": 0}, "strength"),
        ("input_aware", {"width": 0}, "width"),
        ("input_aware", {"cover": "half"}, "cover"),
        ("input_aware", {"diversity": -1}, "diversity"),
        ("input_aware", {"seed": -1}, "seed"),
    ],
)
def test_mistakes(name, options, message):
    with pytest.raises(UserError, match=message) as error:
        triggers.create(name, (8, 8, 1), **options)
    assert "\n" not in str(error.value)


def test_image_too_small_for_the_pattern():
    with pytest.raises(UserError, match="off the image"):
        triggers.create("four_pixels", (3, 8, 1))


def test_image_of_one_pixel_has_no_frequency():
    with pytest.raises(UserError, match="no frequency"):
        triggers.create("low_frequency", (1, 1, 3))


@pytest.mark.parametrize("shape", [(8, 8), (8, 0, 1)])
def test_bad_image_shape(shape):
    with pytest.raises(UserError, match="image_shape"):
        triggers.create("square", shape)


@pytest.mark.parametrize("name", ["square", "wanet", "input_aware"])
def test_images_of_another_shape_type_or_range(name):
    stamp = triggers.create(name, (8, 8, 1))
    for call in (stamp, lambda x: triggers.stamp_examples(stamp, x)):
        with pytest.raises(UserError, match=r"\[8, 8, 1\]"):
            call(np.zeros((2, 8, 9, 1), np.float32))
        with pytest.raises(TypeError):
            call(np.zeros((2, 8, 8, 1), np.int32))
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(UserError, match=r"\[0, 1\]"):
            triggers.stamp_examples(stamp, np.full((1, 8, 8, 1), bad, np.float32))
