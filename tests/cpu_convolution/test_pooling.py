"""Compiled max-pools against a plain loop, and in place of XLA's under all that JAX does with them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P
from slow import SLOW

from mcjax import cpu_convolution
from mcjax.cpu_convolution import build, hook, pooling, self_test
from mcjax.models.pooling import max_pool


@pytest.fixture(autouse=True, scope="module")
def compiled(c_compiler):
    assert build.load()
    cpu_convolution.enable()
    yield
    cpu_convolution.disable()


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def lowered(fn, *operands):
    return jax.jit(fn).lower(*operands).as_text()


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    channels=st.sampled_from([1, 3, 8, 19]),
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    levels=st.sampled_from([2, 1000]),  # two: nearly all windows tie
)
def test_any_window_equals_a_loop(batch, size, channels, window, stride, levels):
    random = np.random.default_rng(0)
    x = random.integers(levels, size=(batch, *size, channels)).astype(np.float32)
    t = images(*x.shape, seed=1)
    largest, taken, spread = self_test.pools(window, stride)
    if (window, stride) == ((1, 1), (1, 1)):
        return  # nothing to pool
    y = largest(x)
    g = images(*y.shape, seed=2)
    expected = self_test.exact_pool(x, t, g, window, stride)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(taken(t, x), expected[1])
    np.testing.assert_allclose(spread(g, x), expected[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 0), (2, 1))])
def test_a_network_of_flax_pools_by_it_without_changes(padding):
    def loss(x):
        return jnp.sin(nn.max_pool(x, (3, 2), (2, 2), padding)).sum()

    x = images(2, 7, 8, 5)
    with cpu_convolution.disabled():
        expected = jax.jit(jax.value_and_grad(loss))(x)
    text = lowered(jax.grad(loss), x)
    assert "mcjax_max_pool_spread" in text
    assert "select_and_scatter" not in text
    found = jax.jit(jax.value_and_grad(loss))(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def second_derivative(x, v):
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(max_pool(x**2, 3, 2)) ** 2))
    return jax.jvp(gradient, (x,), (v,))[1]


def test_second_derivatives_equal_those_in_jax():
    x, v = images(2, 7, 6, 9), images(2, 7, 6, 9, seed=1)
    with cpu_convolution.disabled():
        expected = jax.jit(second_derivative)(x, v)
    assert "mcjax_max_pool_taken" in lowered(second_derivative, x, v)
    found = jax.jit(second_derivative)(x, v)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def gradient(x):
    return jax.grad(lambda x: jnp.sum(max_pool(x, 2, 2) ** 2))(x)


def test_vmap_equals_a_loop():
    x = images(3, 2, 5, 4, 7)
    assert "mcjax_max_pool_spread" in lowered(jax.vmap(gradient), x)
    np.testing.assert_array_equal(jax.vmap(gradient)(x), jnp.stack([gradient(one) for one in x]))
    by_channel = jax.vmap(lambda x: max_pool(x, 2, 2), in_axes=-1, out_axes=-1)(x)
    np.testing.assert_array_equal(
        by_channel, jnp.stack([max_pool(x[..., c], 2, 2) for c in range(7)], -1)
    )


@pytest.mark.parametrize("check_vma", [False, pytest.param(True, marks=SLOW)])
def test_under_shard_map(check_vma):
    x = images(4, 6, 6, 3)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("i",))
    sharded = jax.shard_map(
        gradient, mesh=mesh, in_specs=P("i"), out_specs=P("i"), check_vma=check_vma
    )
    np.testing.assert_array_equal(jax.jit(sharded)(x), gradient(x))


@pytest.mark.parametrize("place", [0, 5])
def test_not_a_number_stays(place):
    x = images(1, 3, 3, 9).reshape(9, 9)
    x[place, 2] = np.nan
    y = np.asarray(jax.jit(lambda x: max_pool(x, 3, 1))(x.reshape(1, 3, 3, 9))).ravel()
    assert np.isnan(y).tolist() == [c == 2 for c in range(9)]


def test_bfloat16_is_exact_but_for_sums():
    x = jnp.asarray(images(2, 6, 6, 5), jnp.bfloat16)
    assert "mcjax_max_pool_spread" in lowered(gradient, x)
    found = jax.jit(lambda x: jax.vjp(lambda x: max_pool(x, 3, 1), x))(x)
    y, back = found
    assert y.dtype == jnp.bfloat16
    wide, back_wide = jax.vjp(lambda x: max_pool(x, 3, 1), x.astype(jnp.float32))
    np.testing.assert_array_equal(y.astype(np.float32), wide)
    g = jnp.asarray(images(*y.shape, seed=1), jnp.bfloat16)
    expected = back_wide(g.astype(jnp.float32))[0].astype(jnp.bfloat16)
    np.testing.assert_array_equal(back(g)[0], expected)


def test_what_it_does_not_take_is_left_to_xla():
    x = images(2, 3, 6, 6)
    channels_first = nn.max_pool(x.transpose(0, 2, 3, 1), (2, 2), (2, 2)).transpose(0, 3, 1, 2)

    def pool(x):
        return lax.reduce_window(x, -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    np.testing.assert_array_equal(jax.jit(pool)(x), channels_first)
    for fn, operand in (
        (pool, x),
        (lambda x: max_pool(x, 2, 2), x.astype(jnp.float16)),
        (lambda x: nn.avg_pool(x, (2, 2), (2, 2)), x),
        (lambda x: -lax.reduce_window(x, np.inf, lax.min, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), x),
    ):
        assert "mcjax_" not in lowered(fn, operand)


def test_a_jax_without_its_rules_pools_in_jax(monkeypatch):
    monkeypatch.setitem(hook.ORIGINAL, hook.POOLS[0], None)
    assert not cpu_convolution.has_compiled_pools(jnp.float32)
    x = images(1, 4, 4, 2)
    text = lowered(jax.grad(lambda x: max_pool(x, 2, 2).sum()), x)
    assert "mcjax_max_pool_spread" not in text
    assert "select_and_scatter" not in text


def test_every_primitive_has_a_function():
    assert set(pooling.NAMES) == set(hook.POOLS)
    assert set(pooling.NAMES.values()) <= set(build.FUNCTIONS)
