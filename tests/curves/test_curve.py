"""Curve laws: exact ends, coefficients that sum to one, the straight line, transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.core.errors import UserError
from mcjax.curves import Bezier, PolyChain

KINDS = [Bezier, PolyChain]
kinds = st.sampled_from(KINDS)
numbers = st.floats(-100, 100, width=32, allow_subnormal=False)
times = st.floats(0, 1, width=32)


def tree(values):
    return {"a": {"kernel": jnp.float32(values).reshape(2, 2)}, "bias": jnp.float32(values[:1])}


trees = st.lists(numbers, min_size=4, max_size=4).map(tree)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@settings(max_examples=30, deadline=None)
@given(kinds, trees, trees, st.lists(trees, max_size=4))
def test_the_ends_are_exact(kind, start, end, bends):
    curve = kind(start, tuple(bends), end)
    assert_equal(curve(0.0), start)
    assert_equal(curve(1.0), end)


@settings(max_examples=30, deadline=None)
@given(kinds, times, st.integers(0, 5))
def test_coefficients_are_a_partition_of_one(kind, t, num_bends):
    c = kind({}, ({},) * num_bends, {}).coefficients(t)
    assert c.shape == (num_bends + 2,)
    assert (c >= 0).all()
    np.testing.assert_allclose(c.sum(), 1, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(kinds, st.floats(-2, 3, width=32), st.integers(0, 3))
def test_beyond_the_ends_the_coefficients_still_sum_to_one(kind, t, num_bends):
    curve = kind({}, ({},) * num_bends, {})
    np.testing.assert_allclose(curve.coefficients(t).sum(), 1, rtol=1e-3)


@settings(max_examples=30, deadline=None)
@given(kinds, trees, trees, st.integers(0, 4), st.floats(-1, 2, width=32))
def test_connect_starts_on_the_straight_line(kind, start, end, num_bends, t):
    w = kind.connect(start, end, num_bends)(t)
    line = jax.tree.map(lambda a, b: (1 - t) * a + t * b, start, end)
    tol = 1e-4 if 0 <= t <= 1 else 1e-2  # coefficients beyond the ends are large and cancel
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=tol), w, line)


@settings(max_examples=30, deadline=None)
@given(kinds, trees, trees, trees, times)
def test_reversed_control_points_run_backwards(kind, start, bend, end, t):
    forth, back = kind(start, (bend,), end)(t), kind(end, (bend,), start)(1 - t)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), forth, back)


@pytest.mark.accelerator
@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.7, 1.0])
def test_one_bend_equals_the_published_formulas(t):
    w1, theta, w2 = 2.0, -3.0, 7.0
    points = [{"w": jnp.float32([v])} for v in (w1, theta, w2)]
    bezier = (1 - t) ** 2 * w1 + 2 * t * (1 - t) * theta + t**2 * w2
    chain = 2 * (t * theta + (0.5 - t) * w1) if t <= 0.5 else 2 * ((t - 0.5) * w2 + (1 - t) * theta)
    for kind, expected in ((Bezier, bezier), (PolyChain, chain)):
        w = kind(points[0], (points[1],), points[2])(t)["w"]
        np.testing.assert_allclose(w, [expected], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_bends", [0, 1, 2, 4])
def test_coefficients_equal_the_official_code(num_bends):
    """Its K counts the ends: C(K-1,j) t^j (1-t)^(K-1-j) and max(0, 1-|t(K-1)-j|)."""
    from scipy.special import binom

    K = num_bends + 2
    j = np.arange(K)
    for t in np.linspace(0, 1, 7):
        bezier = Bezier({}, ({},) * num_bends, {}).coefficients(t)
        np.testing.assert_allclose(
            bezier, binom(K - 1, j) * t**j * (1 - t) ** (K - 1 - j), atol=1e-6
        )
        chain = PolyChain({}, ({},) * num_bends, {}).coefficients(t)
        np.testing.assert_allclose(chain, np.maximum(0, 1 - np.abs(t * (K - 1) - j)), atol=1e-6)


@pytest.mark.accelerator
@pytest.mark.parametrize("kind", KINDS)
def test_composes_with_transformations(kind):
    start, bend, end = tree([0, 1, 2, 3]), tree([5, -1, 0, 2]), tree([1, 1, 1, 1])
    curve = kind(start, (bend,), end)
    ts = jnp.array([0.0, 0.3, 0.9])
    stacked = jax.vmap(curve)(ts)
    for i, t in enumerate(ts):
        one = jax.jit(lambda c, t: c(t))(curve, t)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), stacked, one)
    assert_equal(jax.jit(curve)(0.3), jax.jit(lambda c, t: c(t))(curve, 0.3))
    # d w(t) / d bend is its coefficient, and d w / d t a difference quotient.
    grad = jax.grad(lambda c: c(0.3)["bias"].sum())(curve)
    np.testing.assert_allclose(grad.bends[0]["bias"], curve.coefficients(0.3)[1:2], rtol=1e-6)
    _, tangent = jax.jvp(curve, (jnp.float32(0.3),), (jnp.float32(1),))
    difference = jax.tree.map(lambda a, b: (a - b) / 0.02, curve(0.31), curve(0.29))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), tangent, difference)


@pytest.mark.accelerator
def test_half_precision_stays_half():
    w = {"w": jnp.ones(2, jnp.bfloat16)}
    assert Bezier.connect(w, w)(0.5)["w"].dtype == jnp.bfloat16


def test_random_bends():
    w = {"w": jnp.zeros(2)}
    curve = Bezier.connect(w, w, 2, init_fn=lambda j: {"w": jnp.full(2, float(j))})
    assert [float(b["w"][0]) for b in curve.bends] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ({"w": jnp.zeros(3)}, r"differ at w: float32\[2\] and float32\[3\]"),
        ({"w": jnp.zeros(2, jnp.int32)}, r"differ at w: float32\[2\] and int32\[2\]"),
        ({"v": jnp.zeros(2)}, "end has no w"),
        ({"w": jnp.zeros(2), "v": jnp.zeros(1)}, "start has no v"),
        ([jnp.zeros(2)], "end has no w"),
    ],
)
def test_endpoints_of_different_networks(end, message):
    with pytest.raises(UserError, match=message):
        Bezier.connect({"w": jnp.zeros(2)}, end)


def test_whole_numbers_have_no_path():
    """A table of indices would be rounded to zero inside."""
    trees = [{"w": jnp.zeros(2), "table": {"i": jnp.array([3, 1])}}] * 2
    with pytest.raises(
        UserError, match="table/i is int32; integer parameters cannot be interpolated"
    ):
        Bezier.connect(*trees)


def test_negative_number_of_bends():
    with pytest.raises(UserError, match="num_bends is -1"):
        Bezier.connect({}, {}, -1)


def test_a_chain_goes_on_in_the_direction_of_its_last_segment():
    chain = PolyChain(jnp.zeros(2), (jnp.array([1.0, 0.0]),), jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(chain(1.5), [1, 4], atol=1e-6)
    np.testing.assert_allclose(chain(-0.25), [-0.5, 0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_notebook_a_curve_is_one_short_line(kind):
    curve = kind(tree(np.arange(4)), (tree(np.arange(4)),) * 2, tree(np.arange(4)))
    assert repr(curve) == f"{kind.__name__}(2 bends, 5 parameters)"
    assert repr(kind.connect(tree(np.arange(4)), tree(np.arange(4)), 0)).endswith(
        "(straight line, 5 parameters)"
    )
    assert curve.num_bends == 2


def test_the_length_is_that_of_the_segments():
    chain = PolyChain(jnp.zeros(2), (jnp.array([3.0, 0.0]),), jnp.array([3.0, 4.0]))
    assert chain.length() == pytest.approx(7, rel=1e-4)
