"""Targeted APGD on linear networks, where what can be misclassified is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.attacks.images.apgd_targeted import apgd_targeted
from mcjax.attacks.images.attack_losses import (
    likely_class,
    targeted_difference_of_logits_ratio,
    targeted_margin,
)
from mcjax.core.errors import UserError

W = jax.random.normal(jax.random.key(0), (12, 6))
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def linear(x):
    return x.reshape(len(x), -1) @ W


def two_layers(x):
    return jnp.sin(3 * x.reshape(len(x), -1) @ W) @ W[6:]


def images(n=40, *, network=linear):
    """Near the middle of the box, so that it is not in the way."""
    x = 0.5 + 0.1 * jax.random.normal(jax.random.key(2), (n, 2, 3, 2)).clip(-2, 2)
    return x, network(x).argmax(1)


def size_of(delta, norm):
    return np.linalg.norm(
        np.asarray(delta, np.float64).reshape(len(delta), -1), ORDER[norm], axis=1
    )


def test_the_loss_by_hand_and_free_of_shift_and_scale():
    z = np.random.default_rng(0).normal(size=(30, 6))
    y = np.arange(30) % 6
    target = (y + 1 + np.arange(30) // 6 % 5) % 6
    ordered = -np.sort(-z, 1)
    rows = np.arange(30)
    expected = (z[rows, target] - z[rows, y]) / (
        ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    )
    for scaled in (z, 1e4 * z, 1e-3 * z, z + 7):
        found = targeted_difference_of_logits_ratio(
            jnp.float32(scaled), jnp.array(y), jnp.array(target)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    np.testing.assert_allclose(
        targeted_margin(jnp.float32(z), jnp.array(y), jnp.array(target)),
        z[rows, target] - z[rows, y], rtol=1e-4, atol=1e-6,
    )  # fmt: skip


def test_targets_in_the_order_of_their_logits_without_the_label():
    z = jnp.array([[5.0, 1.0, 3.0, 4.0], [0.0, 9.0, 8.0, 7.0]])
    y = jnp.array([0, 2])
    targets = [likely_class(z, y, rank).tolist() for rank in range(3)]
    assert targets == [[3, 1], [2, 3], [1, 0]]


@pytest.mark.accelerator
@pytest.mark.parametrize("norm", list(ORDER))
def test_it_fools_what_can_be_fooled_on_a_linear_network(norm):
    x, y = images()
    z, w, label = (np.asarray(v, np.float64) for v in (linear(x), W, y))
    label = label.astype(int)
    exact = np.min(
        [[(z[i, label[i]] - z[i, t]) / np.linalg.norm(w[:, label[i]] - w[:, t], DUAL[norm])
          if t != label[i] else np.inf for t in range(6)] for i in range(len(x))], axis=1,
    )  # fmt: skip
    eps = float(np.median(exact))
    x_adv = apgd_targeted(jax.random.key(0), linear, x, y, eps=eps, norm=norm, num_steps=50)
    fooled = np.asarray(linear(x_adv).argmax(1) != y)
    assert not fooled[exact > eps].any()
    assert fooled[exact < 0.99 * eps].all()


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(list(ORDER)), st.sampled_from([0.0, 0.02, 0.3, 1.0]), st.integers(0, 99))
def test_never_leaves_ball_or_box(norm, eps, seed):
    x = jax.random.uniform(jax.random.key(seed), (20, 2, 3, 2))
    y = two_layers(x).argmax(1)
    x_adv = apgd_targeted(
        jax.random.key(seed), two_layers, x, y, eps=eps, norm=norm, num_steps=6, num_targets=2
    )
    assert (size_of(x_adv - x, norm) <= eps + 1e-6).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_more_targets_fool_more_and_early_stop_changes_nothing():
    x, y = images(200, network=two_layers)
    options = {"eps": 0.02, "num_steps": 10}

    def fooled(**more):
        x_adv = apgd_targeted(jax.random.key(0), two_layers, x, y, **options, **more)
        return np.asarray(two_layers(x_adv).argmax(1) != y)

    one, all_targets = fooled(num_targets=1), fooled()
    assert (one <= all_targets).all()
    assert 0 < one.sum() < all_targets.sum() < len(x)
    np.testing.assert_array_equal(all_targets, fooled(early_stop=False))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_with_few_classes_the_margin(num_classes):
    """A linear network's worst case is known for each target; DLR would be constant for three."""
    x, _ = images()
    w = W[:, :num_classes]
    y = (x.reshape(len(x), -1) @ w).argmax(1)
    z = np.asarray(x.reshape(len(x), -1) @ w)
    rows = np.arange(len(x))
    gaps = [
        (z[rows, y] - z[rows, t]) / np.maximum(np.abs(np.asarray(w)[:, y].T - np.asarray(w)[:, t]).sum(1), 1e-9)
        for t in range(num_classes)
    ]  # fmt: skip
    exact = np.where(np.arange(num_classes)[:, None] == np.asarray(y), np.inf, gaps).min(0)
    eps = float(np.median(exact))
    x_adv = apgd_targeted(
        jax.random.key(0), lambda x: x.reshape(len(x), -1) @ w, x, y, eps=eps, num_steps=20
    )
    fooled = np.asarray((x_adv.reshape(len(x), -1) @ w).argmax(1) != y)
    assert fooled[exact < 0.99 * eps].all()
    assert not fooled[exact > eps].any()


def test_same_key_same_images_and_one_image():
    x, y = images(3, network=two_layers)
    options = {"eps": 0.02, "norm": "l2", "num_steps": 5}
    a, b, c = (apgd_targeted(jax.random.key(k), two_layers, x, y, **options) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    one = apgd_targeted(jax.random.key(0), two_layers, x[:1], y[:1], **options)
    assert one.shape == x[:1].shape


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"norm": "l7"}, "norm"),
        ({"eps": jnp.full(40, 0.1)}, r"eps has shape \[40\]; give a single number"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_targets": 6}, "num_targets is 6, but the network has 6 classes; give at most 5"),
    ],
)
def test_mistakes(bad, match):
    x, y = images()
    with pytest.raises(UserError, match=match):
        apgd_targeted(jax.random.key(0), linear, x, y, **{"eps": 0.1, **bad})
