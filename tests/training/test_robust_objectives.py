"""Robust losses by hand on linear models; penalties against closed forms and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

from mcjax import models
from mcjax.attacks import pgd
from mcjax.attacks.images.attack_losses import kl
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.curves import Bezier
from mcjax.models.network import from_apply, from_linen
from mcjax.training.losses import cross_entropy, l2
from mcjax.training.objectives import sample_t, split_curve
from mcjax.training.robust_objectives import (
    curvature_penalty_loss,
    fgsm_loss,
    gradient_penalty_loss,
    madry_loss,
    robust_curve_loss,
    trades_loss,
)

KEY, STEP = jax.random.key(0), jnp.asarray(3)


def _linear(variables, x):
    return x.reshape(len(x), -1) @ variables["params"]["w"]


def _smooth(variables, x):
    return jnp.tanh(x.reshape(len(x), -1) @ variables["params"]["w"]) @ variables["params"]["u"]


LINEAR, SMOOTH = from_apply(_linear), from_apply(_smooth)
W = jax.random.normal(jax.random.key(1), (6, 3))
U = jax.random.normal(jax.random.key(2), (3, 3))


def batch(n=4):
    x = 0.3 + 0.4 * jax.random.uniform(jax.random.key(5), (n, 2, 3, 1))
    return {"image": x, "label": jnp.arange(n) % 3}


def two_class_worst_case(w, x, y, eps):
    """Every coordinate moves by eps against the label, whatever the start: a linear model."""
    flat = np.asarray(x).reshape(len(x), -1)
    w = np.asarray(w)
    own, other = w[:, y].T, w[:, 1 - y].T
    worst = (flat + eps * np.sign(other - own)).clip(0, 1)
    return np.log1p(np.exp((worst * (other - own)).sum(1))).mean()


@pytest.mark.parametrize("make", [madry_loss, fgsm_loss])
def test_worst_case_of_a_linear_model_by_hand(make):
    w, data = W[:, :2], batch()
    data["label"] = data["label"] % 2
    eps = 0.05
    steps = {"step_size": 0.1} if make is fgsm_loss else {"step_size": 0.03, "num_steps": 4}
    loss_fn = make(LINEAR, eps=eps, **steps)

    def loss(w):
        return loss_fn(KEY, STEP, {"w": w}, {}, None, data)[0]

    hand = functools.partial(
        two_class_worst_case, x=data["image"], y=np.asarray(data["label"]), eps=eps
    )
    np.testing.assert_allclose(loss(w), hand(w), rtol=1e-5)
    # The gradient is that at the worst images, and by Danskin that of the maximum.
    direction = np.asarray(jax.random.normal(jax.random.key(9), w.shape))
    h = 1e-3
    w64 = np.float64(w)
    slope = (hand(w64 + h * direction) - hand(w64 - h * direction)) / (2 * h)
    np.testing.assert_allclose((jax.grad(loss)(w) * direction).sum(), slope, rtol=1e-3)
    _, (stats, metrics) = loss_fn(KEY, STEP, {"w": w}, {}, None, data)
    assert stats == {}
    np.testing.assert_allclose(metrics.cross_entropy, loss(w))


def test_trades_is_its_formula_at_its_own_images():
    data, beta = batch(), 2.5
    params = {"w": W, "u": U}
    options = {"eps": 0.1, "step_size": 0.04, "num_steps": 3}

    def f(params, x):
        return _smooth({"params": params}, x)

    x_adv = pgd(
        stream(KEY, "attack", STEP), lambda x: f(params, x), data["image"], data["label"],
        *options.values(), loss="kl", keep_best=False,
    )  # fmt: skip

    def formula(params):
        clean, perturbed = f(params, data["image"]), f(params, x_adv)
        return (cross_entropy(clean, data["label"]) + beta * kl(clean, perturbed)).mean()

    loss_fn = trades_loss(SMOOTH, beta=beta, **options)
    (value, (_, metrics)), gradient = jax.value_and_grad(
        lambda p: loss_fn(KEY, STEP, p, {}, None, data), has_aux=True
    )(params)
    np.testing.assert_allclose(value, formula(params), rtol=1e-5)
    assert value > metrics.cross_entropy + 1e-3
    for name, expected in jax.grad(formula)(params).items():
        np.testing.assert_allclose(gradient[name], expected, rtol=1e-3, atol=1e-6)


def test_robust_curve_is_the_robust_loss_at_the_sampled_point():
    start, end = {"w": W[:, :2]}, {"w": -0.5 * W[:, :2]}
    trained, fixed = split_curve(Bezier.connect(start, end, num_bends=1))
    data = batch()
    data["label"] = data["label"] % 2
    wd, eps = 0.1, 0.05
    loss_fn = robust_curve_loss(
        LINEAR, Bezier, weight_decay=wd, eps=eps, step_size=0.03, num_steps=4
    )
    w_t = Bezier(**trained, **fixed)(sample_t(stream(KEY, "t"), STEP))
    expected = two_class_worst_case(w_t["w"], data["image"], np.asarray(data["label"]), eps)
    loss, (_, metrics) = loss_fn(KEY, STEP, trained, {}, fixed, data)
    np.testing.assert_allclose(metrics.cross_entropy, expected, rtol=1e-5)
    np.testing.assert_allclose(loss, expected + wd * l2(w_t), rtol=1e-5)
    gradient = jax.grad(lambda p: loss_fn(KEY, STEP, p, {}, fixed, data)[0])(trained)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 1e-3


def test_gradient_penalty_of_a_linear_model_by_hand():
    """grad_x CE = (p - e_y) W^T, so that the penalty is a formula of p and W alone."""
    data, weight = batch(), 3.0
    x, y = np.float64(data["image"]).reshape(4, -1), np.asarray(data["label"])

    def hand(w):
        z = x @ w
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        g = (p - np.eye(3)[y]) @ w.T
        return (-np.log(p[np.arange(4), y]) + weight * (g**2).sum(1)).mean()

    loss_fn = gradient_penalty_loss(LINEAR, weight=weight)
    value, gradient = jax.value_and_grad(lambda w: loss_fn(KEY, STEP, {"w": w}, {}, None, data)[0])(
        W
    )
    np.testing.assert_allclose(value, hand(np.float64(W)), rtol=1e-5)
    check_by_differences(hand, np.float64(W), gradient)


def test_curvature_penalty_by_hand():
    data, weight, h = batch(), 3.0, 0.8
    x, y = np.float64(data["image"]).reshape(4, -1), np.asarray(data["label"])

    def gradient_at(w, x):
        z = x @ w
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return (p - np.eye(3)[y]) @ w.T, p

    sign = np.sign(gradient_at(np.float64(W), x)[0])  # a constant: small changes of w leave it
    z = sign / np.linalg.norm(sign, axis=1, keepdims=True)

    def hand(w):
        g, p = gradient_at(w, x)
        bend = gradient_at(w, x + h * z)[0] - g
        return (-np.log(p[np.arange(4), y]) + weight * (bend**2).sum(1)).mean()

    loss_fn = curvature_penalty_loss(LINEAR, weight=weight, h=h)
    value, gradient = jax.value_and_grad(lambda w: loss_fn(KEY, STEP, {"w": w}, {}, None, data)[0])(
        W
    )
    np.testing.assert_allclose(value, hand(np.float64(W)), rtol=1e-5)
    check_by_differences(hand, np.float64(W), gradient)


def check_by_differences(f, w, gradient, step=1e-5):
    numeric = np.zeros_like(w)
    for i in np.ndindex(w.shape):
        e = np.zeros_like(w)
        e[i] = step
        numeric[i] = (f(w + e) - f(w - e)) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-4 * np.abs(numeric).max())


@pytest.fixture(scope="module")
def batch_norm_network():
    net = from_linen(models.create("preresnet", num_classes=3, depth=8), (8, 8, 1))
    return net, net.init(jax.random.key(0))


@pytest.mark.slow(compiles=True)
def test_batch_norm_sees_the_adversarial_batch_once(batch_norm_network):
    """The new running statistics are those of one pass over the images that the loss used."""
    net, variables = batch_norm_network
    data = {
        "image": jax.random.uniform(jax.random.key(1), (6, 8, 8, 1)),
        "label": jnp.arange(6) % 3,
    }
    params, stats = variables["params"], variables["batch_stats"]
    loss_fn = madry_loss(net, eps=0.05, step_size=0.02, num_steps=2)
    loss, (new, _) = jax.jit(loss_fn)(KEY, STEP, params, stats, None, data)

    def train_mode(x):
        return net.apply_train(KEY, variables, x)

    x_adv = pgd(
        stream(KEY, "attack", STEP), lambda x: train_mode(x)[0], data["image"], data["label"],
        0.05, 0.02, 2, keep_best=False,
    )  # fmt: skip
    logits, expected = train_mode(x_adv)
    np.testing.assert_allclose(loss, cross_entropy(logits, data["label"]).mean(), rtol=1e-4)
    for a, b, old in zip(*map(jax.tree.leaves, (new, expected, stats)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        assert (a != old).any()


def test_mistakes():
    with pytest.raises(UserError, match="eps"):
        madry_loss(LINEAR, eps=-0.1)
    with pytest.raises(UserError, match="beta"):
        trades_loss(LINEAR, beta=-1.0)
    with pytest.raises(UserError, match="weight"):
        gradient_penalty_loss(LINEAR, weight=-1.0)
    with pytest.raises(UserError, match="h is 0"):
        curvature_penalty_loss(LINEAR, weight=1.0, h=0)
    with pytest.raises(UserError, match="unknown norm"):
        fgsm_loss(LINEAR, norm="l7")(KEY, STEP, {"w": W}, {}, None, batch())


def test_equal_settings_are_equal_losses():
    assert madry_loss(LINEAR, eps=0.1) == madry_loss(LINEAR, eps=0.1)
    assert madry_loss(LINEAR, eps=0.1) != madry_loss(LINEAR, eps=0.2)


@pytest.mark.parametrize("make", [pytest.param(madry_loss, marks=SLOW), fgsm_loss])
def test_a_positive_factor_on_the_logits_changes_no_robust_accuracy(make):
    """The inner attack of adversarial training does not stall where softmax saturates."""
    x = jax.random.uniform(jax.random.key(5), (200, 2, 3, 1))
    w = W[:, :2]
    y = (x.reshape(200, -1) @ w).argmax(1)
    steps = {} if make is fgsm_loss else {"step_size": 0.01, "num_steps": 10}
    loss_fn = make(LINEAR, eps=0.05, **steps)
    found = []
    for factor in (1.0, 1e-3, 300.0, 1e4):
        _, (_, metrics) = loss_fn(KEY, STEP, {"w": factor * w}, {}, None, {"image": x, "label": y})
        found.append(float(metrics.accuracy))
    assert 0.1 < found[0] < 0.97
    assert max(found) - min(found) <= 0.005 + 1e-6, found
