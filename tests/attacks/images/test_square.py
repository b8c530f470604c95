"""Square: its schedule by hand, its laws, and how much it finds on linear networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import all_but

from mcjax.attacks.images.attack_losses import margin
from mcjax.attacks.images.square import square
from mcjax.attacks.images.square_windows import bump, covered_share, tiles, window_sizes
from mcjax.core.errors import UserError

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
SHAPE = (7, 6, 3)
W = jax.random.normal(jax.random.key(0), (7 * 6 * 3, 4))


def linear(x):
    return x.reshape(len(x), -1) @ W


def images(n=20, seed=1):
    x = jax.random.uniform(jax.random.key(seed), (n, *SHAPE), minval=0.2, maxval=0.8)
    return x, linear(x).argmax(1)


def size_of(delta, norm):
    return np.linalg.norm(
        np.asarray(delta, np.float64).reshape(len(delta), -1), ORDER[norm], axis=1
    )


def test_the_schedule_by_hand():
    """The paper's: 0.8, halved after 10, 50, 200, ... queries, of 28 x 28 and 32 x 32 pixels."""
    shares = [covered_share(i) for i in (0, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001)]
    halvings = [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(shares, 0.8 / 2.0 ** np.array(halvings))
    at = [0, 11, 51, 201, 501, 1001, 2001, 4001]
    # sqrt(0.8 * 784) = 25.04, sqrt(0.4 * 784) = 17.7, ...
    assert window_sizes(5000, 28, 28, "linf")[at].tolist() == [25, 18, 13, 9, 6, 4, 3, 2]
    assert window_sizes(5000, 32, 32, "l2")[at].tolist() == [29, 21, 15, 11, 7, 5, 5, 3]
    for height, width in ((1, 1), (2, 5), (3, 4), (8, 8)):
        for norm in ORDER:
            sizes = window_sizes(600, height, width, norm)
            assert 1 <= sizes.min() <= sizes.max() <= min(height, width)
            if norm != "linf":
                assert (sizes % 2 == 1).all()


def test_the_bump_by_hand():
    """Side 5: n = 2, terms 1/9, 1/4, 1; the peak of the left 5 x 2 pixels is at row 2, column 1."""
    one, two, three = 1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1
    left = np.array([[one, one], [two, two], [two, three], [two, two], [one, one]])
    right = -np.array(
        [[one] * 3, [two] * 3, [two, three, two], [two] * 3, [one] * 3]
    )  # 5 x 3, its peak in the middle
    expected = np.concatenate([left, right], 1)
    np.testing.assert_allclose(bump(5, 2), expected / np.linalg.norm(expected), rtol=1e-6)
    np.testing.assert_allclose(bump(5, 1), expected / np.abs(expected).sum(), rtol=1e-6)
    assert abs(bump(1, 2)).tolist() == [[1.0]]
    pattern, tile = tiles(11, 10, 2)
    assert np.unique(tile).tolist() == list(range(25))
    np.testing.assert_allclose([np.sum(pattern[tile == i] ** 2) for i in range(25)], 1)


@pytest.mark.slow(compiles=True)
@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(list(ORDER)),
    st.sampled_from([0.0, 0.1, 0.5, 3.0, 20.0]),
    st.sampled_from([(7, 6, 3), (1, 2, 1), (2, 2, 5)]),
    st.integers(0, 99),
)
def test_never_leaves_ball_or_box(norm, eps, shape, seed):
    widest = {"linf": 1, "l2": np.sqrt(np.prod(shape)), "l1": np.prod(shape)}[norm]
    eps = min(eps, float(widest))  # more is refused
    x = jax.random.uniform(jax.random.key(seed), (5, *shape))
    w = jax.random.normal(jax.random.key(1), (int(np.prod(shape)), 3))

    def network(x):
        return x.reshape(len(x), -1) @ w

    y = network(x).argmax(1)
    z = square(jax.random.key(seed), network, x, y, eps=eps, norm=norm, num_queries=60)
    assert (size_of(z - x, norm) <= eps + 1e-6).all()
    assert ((z >= 0) & (z <= 1)).all()


@pytest.mark.parametrize("norm", all_but(["linf"], ORDER))
def test_more_queries_continue_the_search_and_never_raise_the_loss(norm):
    x, y = images()
    eps = {"linf": 0.02, "l2": 0.1, "l1": 0.3}[norm]
    losses = [
        -margin(
            linear(square(jax.random.key(0), linear, x, y, eps=eps, norm=norm, num_queries=n)), y
        )
        for n in (1, 30, 200)
    ]
    assert (losses[1] <= losses[0] + 1e-5).all()
    assert (losses[2] <= losses[1] + 1e-5).all()
    assert losses[2].mean() < losses[1].mean() < losses[0].mean()


@pytest.mark.parametrize("norm", all_but(["linf"], ORDER))
def test_nearly_as_low_as_the_lowest_on_a_linear_network(norm):
    """Of two classes: the lowest margin is gap - eps |w_0 - w_1| in the dual norm."""
    x, _ = images(6)
    w = W[:, :2].at[:, 1].add(0.0)
    eps = {"linf": 0.02, "l2": 0.1, "l1": 0.15}[norm]

    def network(x):
        return x.reshape(len(x), -1) @ w + jnp.array([[100.0, 0.0]])  # never misclassified

    y = jnp.zeros(6, int)
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    lowest = eps * np.linalg.norm(np.asarray(w[:, 0] - w[:, 1], np.float64), dual)
    z = square(jax.random.key(0), network, x, y, eps=eps, norm=norm, num_queries=2500)
    gained = np.asarray(margin(network(z), y) - margin(network(x), y))
    assert (gained <= lowest + 1e-3).all()
    # Windows of 3 x 3 pixels and more follow weights of white noise only so far.
    share = {"linf": 0.97, "l2": 0.55, "l1": 0.38}[norm]
    assert (gained >= share * lowest).all(), gained / lowest


def test_in_linf_every_pixel_is_at_eps():
    x, y = images()
    z = square(jax.random.key(0), linear, x, y, eps=0.01, num_queries=100)
    np.testing.assert_allclose(jnp.abs(z - x), 0.01, atol=1e-6)
    start = square(jax.random.key(0), linear, x, y, eps=0.01, num_queries=1)
    assert (jnp.sign(start - x) == jnp.sign(start - x)[:, :1]).all()  # vertical stripes


def test_without_gradients_and_the_same_for_the_same_key():
    x, _ = images(8)

    def steps(x):
        return jnp.round(3 * linear(x))

    y = steps(x).argmax(1)
    a, b, c = (square(jax.random.key(k), steps, x, y, eps=0.2, num_queries=100) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert (steps(a).argmax(1) != y).sum() >= 4
    alone = square(jax.random.key(0), steps, x[:1], y[:1], eps=0.2, num_queries=100)
    np.testing.assert_array_equal(alone, a[:1])  # an image's search is its own


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"norm": "l7"}, "norm"),
        ({"eps": -0.1}, "eps"),
        ({"eps": jnp.full(20, 0.1)}, r"eps has shape \[20\]; give a single number"),
        ({"num_queries": 0}, "num_queries"),
    ],
)
def test_mistakes(bad, match):
    x, y = images()
    with pytest.raises(UserError, match=match):
        square(jax.random.key(0), linear, x, y, **{"eps": 0.1, **bad})
