"""FAB on linear networks, where the nearest misclassified image is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import SLOW, all_but

from mcjax.attacks.images.fab import fab
from mcjax.core.errors import UserError

W = jax.random.normal(jax.random.key(0), (12, 4))
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def linear(x):
    return x.reshape(len(x), -1) @ W


def two_layers(x):
    return jnp.tanh(4 * x.reshape(len(x), -1) @ W) @ W[:4]


def images(n=20, *, network=linear, seed=1):
    """Near the middle of the box, so that it is not in the way of the nearest."""
    x = 0.5 + 0.1 * jax.random.normal(jax.random.key(seed), (n, 2, 3, 2)).clip(-2, 2)
    return x, network(x).argmax(1)


def distances(x, y, norm):
    """To the nearest of the hyperplanes between the label and another class."""
    z, w = np.asarray(linear(x), np.float64), np.asarray(W, np.float64)
    far = [
        [(z[i, y[i]] - z[i, t]) / np.linalg.norm(w[:, y[i]] - w[:, t], DUAL[norm])
         for t in range(4) if t != y[i]]
        for i in range(len(x))
    ]  # fmt: skip
    return np.min(far, axis=1)


def size_of(delta, norm):
    return np.linalg.norm(
        np.asarray(delta, np.float64).reshape(len(delta), -1), ORDER[norm], axis=1
    )


@pytest.mark.accelerator
@pytest.mark.parametrize("norm", list(ORDER))
def test_of_a_linear_network_the_exact_distance(norm):
    x, y = images()
    exact = distances(x, np.asarray(y), norm)
    near = exact < {"linf": 0.2, "l2": 0.5, "l1": 0.25}[norm]  # where the box cannot matter
    assert near.sum() >= 6
    found = fab(jax.random.key(0), linear, x, y, norm=norm, num_steps=30)
    assert (linear(found).argmax(1) != y)[near].all()
    np.testing.assert_allclose(size_of(found - x, norm)[near], exact[near], rtol=2e-4)


@pytest.mark.parametrize("norm", list(ORDER))
def test_with_eps_what_lies_within_and_nothing_else(norm):
    x, y = images()
    exact = distances(x, np.asarray(y), norm)
    eps = float(np.median(exact))
    found = fab(jax.random.key(0), linear, x, y, eps=eps, norm=norm, num_steps=30)
    fooled = np.asarray(linear(found).argmax(1) != y)
    np.testing.assert_array_equal(fooled, exact < eps)
    np.testing.assert_array_equal(found[~fooled], x[~fooled])
    assert (size_of(found - x, norm) <= eps + 1e-6).all()


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(list(ORDER)), st.sampled_from([0.0, 0.02, 0.2, 1.0]), st.integers(0, 99))
def test_never_leaves_ball_or_box(norm, eps, seed):
    x = jax.random.uniform(jax.random.key(seed), (20, 2, 3, 2))
    y = two_layers(x).argmax(1)
    found = fab(jax.random.key(seed), two_layers, x, y, eps=eps, norm=norm, num_steps=10)
    assert (size_of(found - x, norm) <= eps + 1e-6).all()
    assert ((found >= 0) & (found <= 1)).all()


@SLOW
def test_misclassified_images_stay_and_more_search_is_never_farther():
    x, y = images(30, network=two_layers)
    wrong = (y + 1) % 4
    np.testing.assert_array_equal(fab(jax.random.key(0), two_layers, x, wrong), x)

    def far(**options):
        found = fab(jax.random.key(0), two_layers, x, y, norm="l2", **options)
        size = size_of(found - x, "l2")
        return np.where(np.asarray(two_layers(found).argmax(1) != y), size, np.inf)

    once, steps, starts = far(num_steps=5), far(num_steps=40), far(num_steps=40, num_restarts=3)
    assert np.isfinite(once).sum() > 20
    # The final steps along the line are not nested, so a run may lose a little.
    assert (steps <= once * 1.01).all()
    assert (starts <= steps * 1.01).all()
    assert np.nanmean(steps[np.isfinite(once)]) < once[np.isfinite(once)].mean()
    one_target = far(num_steps=40, num_targets=1)
    assert (steps <= one_target * 1.01).all()


@pytest.mark.parametrize("norm", all_but(["linf"], ORDER))
def test_a_factor_on_the_logits_changes_nothing(norm):
    x, y = images()
    found = [
        fab(
            jax.random.key(0),
            jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, factor * W),
            x, y, norm=norm, num_steps=15,
        )
        for factor in (1.0, 1e-3, 1e4)
    ]  # fmt: skip
    for other in found[1:]:
        np.testing.assert_allclose(
            size_of(other - x, norm), size_of(found[0] - x, norm), rtol=1e-3, atol=1e-6
        )


def test_gradients_of_zero_or_nan_leave_the_image():
    x, y = images(3)

    def constant(x):
        return jnp.zeros((len(x), 4)).at[:, 0].set(1.0)

    def broken(x):
        return linear(x) * jnp.nan

    for network in (constant, broken):
        found = fab(jax.random.key(0), network, x, 0 * y, num_steps=3)
        np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"norm": "l7"}, "norm"),
        ({"eps": -0.1}, "eps"),
        ({"eps": jnp.full(20, 0.1)}, r"eps has shape \[20\]; give a single number"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"num_targets": 0}, "num_targets"),
        ({"num_targets": 4}, "num_targets is 4, but the network has 4 classes; give at most 3"),
    ],
)
def test_mistakes(bad, match):
    x, y = images()
    with pytest.raises(UserError, match=match):
        fab(jax.random.key(0), linear, x, y, **bad)
