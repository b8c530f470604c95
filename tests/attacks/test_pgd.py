"""PGD against steps worked by hand, and its laws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.attacks.pgd import pgd
from mcjax.errors import UserError
from mcjax.losses import cross_entropy

W = jax.random.normal(jax.random.key(0), (12, 3))


def linear(x):
    return x.reshape(len(x), -1) @ W


def two_layers(x):
    return jnp.tanh(4 * x.reshape(len(x), -1) @ W) @ W[:3]


def images(n=5, seed=1):
    return jax.random.uniform(jax.random.key(seed), (n, 2, 3, 2)), jnp.arange(n) % 3


def test_two_steps_by_hand_on_a_linear_model():
    """For two classes the gradient's sign is that of w_other - w_own, whatever the step."""
    w = np.float32([[1.0, -1.0], [0.0, 2.0], [0.5, -0.5], [0.0, 0.0]])
    x = jnp.float32([0.5, 0.5, 0.95, 0.5]).reshape(1, 1, 2, 2)
    y = jnp.array([1])
    x_adv = pgd(
        jax.random.key(0), lambda x: x.reshape(1, 4) @ w, x, y,
        eps=0.15, step_size=0.1, num_steps=2, random_start=False,
    )  # fmt: skip
    # signs of w[:, 0] - w[:, 1]: +, -, +, 0; two steps of 0.1 end at eps; 0.95 meets the box.
    np.testing.assert_allclose(x_adv.ravel(), [0.65, 0.35, 1.0, 0.5], rtol=1e-6)


def test_l2_step_by_hand():
    w = np.float32([[0.0, 3.0], [0.0, 4.0]])
    x = jnp.full((1, 1, 1, 2), 0.5)
    x_adv = pgd(
        jax.random.key(0), lambda x: x.reshape(1, 2) @ w, x, jnp.array([0]),
        eps=0.2, step_size=0.5, num_steps=1, norm="l2", random_start=False,
    )  # fmt: skip
    np.testing.assert_allclose(x_adv.ravel(), [0.5 + 0.2 * 0.6, 0.5 + 0.2 * 0.8], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["linf", "l2"]),
    st.floats(0, 1),
    st.floats(0, 2),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 99),
)
def test_never_leaves_ball_or_box(norm, eps, step_size, num_steps, random_start, seed):
    x, y = images(seed=seed)
    x_adv = pgd(
        jax.random.key(seed), two_layers, x, y, eps, step_size, num_steps, norm, random_start
    )
    delta = np.asarray(x_adv - x).reshape(5, -1)
    size = np.abs(delta).max(1) if norm == "linf" else np.linalg.norm(delta, axis=1)
    assert (size <= eps + 1e-5).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_steps_are_never_weaker_and_the_loss_rises(norm):
    x, y = images(50)
    losses = [
        cross_entropy(two_layers(pgd(jax.random.key(0), two_layers, x, y, 0.3, 0.1, n, norm)), y)
        for n in (0, 1, 5, 20)
    ]
    for weaker, stronger in itertools.pairwise(losses):
        assert (stronger >= weaker - 1e-6).all()
    assert losses[-1].mean() > losses[0].mean() + 0.05


def test_same_key_same_images_other_key_others():
    x, y = images()
    a, b, c = (pgd(jax.random.key(k), two_layers, x, y, num_steps=1) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_examples_do_not_influence_each_other():
    """Whatever happens to the others, even that they have no finite loss."""
    x, y = images(6)
    others = x.at[3:].set(jnp.nan)
    options = {"eps": 0.3, "step_size": 0.1, "random_start": False}
    a, b = (pgd(jax.random.key(0), two_layers, each, y, **options) for each in (x, others))
    np.testing.assert_array_equal(a[:3], b[:3])


def test_under_vmap_over_networks():
    x, y = images()
    ws = jnp.stack([W, -W])

    def attack(w):
        return pgd(jax.random.key(0), lambda x: x.reshape(len(x), -1) @ w, x, y)

    together = jax.jit(jax.vmap(attack))(ws)
    for i, w in enumerate(ws):
        np.testing.assert_allclose(together[i], attack(w), atol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"norm": "l7"}, {"eps": -0.1}, {"step_size": -1.0}, {"num_steps": -1}]
)
def test_mistakes(bad):
    x, y = images()
    with pytest.raises(UserError, match=next(iter(bad))):
        pgd(jax.random.key(0), linear, x, y, **bad)
