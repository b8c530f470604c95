"""Winograd's convolutions in C against float64 sums."""

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mcjax import cpu_convolution
from mcjax.cpu_convolution import build, fused, self_test, winograd


@pytest.fixture(autouse=True, scope="module")
def compiled(c_compiler):
    assert build.load()


def operands(batch, h, w, vectors, r, groups):
    """Images and weights of so many vectors of channels a group."""
    i, o = (n * build.lanes() for n in vectors)
    random = np.random.default_rng(0)
    x = random.normal(size=(batch, h, w, i * groups)).astype(np.float32)
    return x, random.normal(size=(r, r, i, o * groups)).astype(np.float32)


def both(x, w, padding, groups=1, tile_size=None):
    """The convolution, and its weights' gradient for a gradient that is another convolution."""
    options = {"padding": padding, "groups": groups, "tile_size": tile_size}
    y = jax.jit(partial(fused.forward, **options))(x, w)
    g = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    dw = jax.jit(partial(fused.weight_gradient, taps=len(w), **options))(x, g)
    return (y, dw), self_test.exact(x, w, g, (1, 1), padding, groups)


def close(found, expected, tolerance=4e-6):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert np.abs(np.asarray(a) - b).max() <= tolerance * np.abs(b).max()


@settings(max_examples=40, deadline=None)
@given(
    batch=st.sampled_from([1, 2, 3, 20]),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    vectors=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    form=st.sampled_from(sorted(winograd.FORMS)),
    padding=st.tuples(*2 * [st.tuples(st.integers(-1, 3), st.integers(0, 3))]),
    groups=st.sampled_from([1, 1, 2]),
)
def test_any_shape_equals_float64(batch, size, vectors, form, padding, groups):
    m, r = form
    if min(n + sum(p) for n, p in zip(size, padding, strict=True)) < r:
        return
    x, w = operands(batch, *size, vectors, r, groups)
    close(*both(x, w, padding, groups, m))


@pytest.mark.parametrize("form", sorted(winograd.FORMS))
def test_more_channels_than_a_task_takes(form):
    """Slices of 64 and 128 channels with a rest, and an odd number of vectors."""
    m, r = form
    x, w = operands(3, 7, 9, (5, 9), r, 1)
    close(*both(x, w, ((1, 1), (2, 1)), tile_size=m))


@pytest.mark.parametrize("form", sorted(winograd.FORMS))
def test_channels_are_as_exact_as_promised(form):
    """Within 3e-6 of the largest output, however many channels are added up."""
    m, r = form
    x, w = operands(2, 8, 8, (512 // build.lanes(), 1), r, 1)
    close(*both(x, w, ((1, 1), (1, 1)), tile_size=m), tolerance=3e-6)


@pytest.mark.parametrize(
    ("taps", "channels", "stride", "groups", "expected"),
    [
        ((3, 3), (1, 2), (1, 1), 1, True),
        ((5, 5), (1, 1), (1, 1), 1, True),
        ((3, 3), (2, 4), (1, 1), 2, True),
        ((3, 3), (1, 2), (1, 1), 2, False),
        ((3, 5), (1, 1), (1, 1), 1, False),
        ((7, 7), (1, 1), (1, 1), 1, False),
        ((3, 3), (1, 1), (2, 1), 1, False),
        ((3, 3), (1, 1.5), (1, 1), 1, False),
    ],
)
def test_what_fits(taps, channels, stride, groups, expected):
    channels = [int(n * build.lanes()) for n in channels]
    assert fused.fits(taps, channels, stride=stride, groups=groups) == expected


def test_what_does_not_fit_is_refused():
    """By the C functions, which would read or write out of bounds."""
    n, padding = build.lanes(), ((0, 0), (0, 0))
    x, g = jnp.ones((1, 8, 8, n)), jnp.ones((1, 6, 6, n))
    refused = pytest.raises(jax.errors.JaxRuntimeError, match="no whole vectors")
    with refused:
        fused.forward(jnp.ones((1, 8, 8, n + 1)), jnp.ones((3, 3, n + 1, n)), padding=padding)
    with refused:
        fused.forward(x, jnp.ones((3, 3, n // 2, n)), padding=padding, groups=2)
    with refused:
        fused.forward(x, jnp.ones((3, 3, n, n)), padding=padding, tile_size=3)
    with refused:
        fused.weight_gradient(x, g[..., 1:], taps=3, padding=padding)


@pytest.mark.parametrize(("taps", "groups"), [(3, 1), (5, 1), (3, 2)])
def test_derivatives_of_a_network_equal_xlas(taps, groups):
    x, w = operands(8, 8, 8, (2, 2), taps, groups)

    def loss(x, w):
        y = lax.conv_general_dilated(
            x, 0.1 * w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )  # fmt: skip
        return jnp.sin(y).sum()

    gradient = jax.grad(loss, (0, 1))
    with cpu_convolution.disabled():
        expected = jax.jit(gradient)(x, w)
    cpu_convolution.enable()
    try:
        names = jax.jit(gradient).lower(x, w).as_text()
        found = jax.jit(gradient)(x, w)
    finally:
        cpu_convolution.disable()
    if build.lanes() >= 8:  # else fewer channels than pay
        assert "mcjax_winograd_gradient" in names
        assert names.count("@mcjax_winograd(") == 2
    close(found, [np.asarray(z) for z in expected], 2e-5)


def test_one_result_for_any_number_of_threads():
    """Both cores work on one call at a time, or four calls share them."""
    x, w = operands(16, 12, 12, (2, 4), 3, 1)
    fn = jax.jit(partial(fused.forward, padding=((1, 1), (1, 1))))
    dfn = jax.jit(partial(fused.weight_gradient, taps=3, padding=((1, 1), (1, 1))))
    y = np.asarray(fn(x, w))
    expected, found = (y, np.asarray(dfn(x, y))), []

    def call():
        found.extend((np.asarray(fn(x, w)), np.asarray(dfn(x, y))) for _ in range(10))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 40
    assert all((a == b).all() for one in found for a, b in zip(one, expected, strict=True))
