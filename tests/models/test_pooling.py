"""Max-pools against Flax's, by values, ties and derivatives of both orders."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

from mcjax.models.pooling import max_pool, max_pool_2x2


def flax_pool(x):
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def images(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (2, 7, 5, 3), (1, 2, 2, 1), (2, 3, 2, 4)])
def test_values_and_gradient_equal_flax(shape):
    x = images(*shape)
    y, back = jax.vjp(max_pool_2x2, x)
    y_flax, back_flax = jax.vjp(flax_pool, x)
    g = images(*y.shape, seed=1)
    np.testing.assert_array_equal(y, y_flax)
    np.testing.assert_array_equal(back(g)[0], back_flax(g)[0])


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (3, 1), (2, 3), (3, 3), (1, 1)])
@pytest.mark.parametrize(
    "size", [pytest.param((3, 3), marks=SLOW), (7, 6), pytest.param((15, 8), marks=SLOW)]
)
def test_other_windows_equal_flax(window, stride, size):
    x = images(2, *size, 3)
    y, back = jax.vjp(lambda x: max_pool(x, window, stride), x)
    y_flax, back_flax = jax.vjp(
        lambda x: nn.max_pool(x, (window, window), strides=(stride, stride)), x
    )
    g = images(*y.shape, seed=1)
    np.testing.assert_array_equal(y, y_flax)
    np.testing.assert_allclose(back(g)[0], back_flax(g)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("window", "first"),
    [
        ([[1, 1], [1, 1]], (0, 0)),
        ([[0, 1], [1, 1]], (0, 1)),
        ([[0, 0], [1, 1]], (1, 0)),
        ([[1, 0], [0, 1]], (0, 0)),
    ],
)
def test_the_first_of_tied_pixels_takes_the_whole_gradient(window, first):
    x = jnp.array(window, jnp.float32)[None, :, :, None]
    gradient = jax.grad(lambda x: 3.0 * max_pool_2x2(x).sum())(x)[0, :, :, 0]
    expected = np.zeros((2, 2))
    expected[first] = 3.0
    np.testing.assert_array_equal(gradient, expected)


def test_forward_over_reverse_equals_flax():
    x, v = images(2, 6, 5, 3), images(2, 6, 5, 3, seed=1)

    def hessian_product(pool):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(pool(x**2)) ** 2))
        return jax.jit(lambda x, v: jax.jvp(gradient, (x,), (v,))[1])(x, v)

    np.testing.assert_allclose(
        hessian_product(max_pool_2x2), hessian_product(flax_pool), rtol=1e-5, atol=1e-5
    )


@SLOW
def test_vmap_equals_a_loop():
    x = images(3, 2, 5, 4, 2)
    gradient = jax.grad(lambda x: jnp.sum(max_pool_2x2(x) ** 2))
    np.testing.assert_array_equal(
        jax.vmap(gradient)(x), jnp.stack([gradient(image) for image in x])
    )
    np.testing.assert_array_equal(
        jax.vmap(max_pool_2x2, in_axes=-1, out_axes=-1)(x),
        jnp.stack([max_pool_2x2(x[..., c]) for c in range(2)], -1),
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_dtype_is_kept_and_all_negative_windows_are_right(dtype):
    x = jnp.full((1, 2, 2, 1), -7, dtype)
    y = max_pool_2x2(x)
    assert y.dtype == dtype
    assert float(y.item()) == -7


def test_gradient_needs_no_select_and_scatter():
    """That operation is what makes Flax's slow."""
    x = images(2, 4, 4, 3)

    def lowered(pool):
        return jax.jit(jax.grad(lambda x: pool(x).sum())).lower(x).as_text()

    assert "select_and_scatter" in lowered(flax_pool)
    assert "select_and_scatter" not in lowered(max_pool_2x2)
