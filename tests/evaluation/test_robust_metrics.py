"""What a path is asked about evasion, on linear networks where every number is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.core.sharding import make_mesh
from mcjax.curves import Bezier
from mcjax.data.batches import stack_batches
from mcjax.evaluation.path import examples_along_path
from mcjax.evaluation.robust_metrics import margin, robust_metrics, transfer
from mcjax.models.network import from_apply, from_linen

LINEAR = from_apply(lambda w, x: x.reshape(len(x), -1) @ w, num_classes=2, piecewise_linear=True)
W = jnp.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
X = jnp.full((3, 2, 2, 1), 0.5)
Y = jnp.array([0, 0, 1])


def test_metrics_of_a_linear_network():
    metric_fn = jax.jit(robust_metrics(LINEAR, seed=0, eps=0.1, step_size=0.1, num_steps=3))
    found = metric_fn(W, {"image": X, "label": Y})
    # Logits 1.0 and 0.5; the attack moves each weighed pixel by 0.1 against the label.
    np.testing.assert_allclose(found["loss"], np.log1p(np.exp([-0.5, -0.5, 0.5])), rtol=1e-5)
    np.testing.assert_allclose(found["robust_loss"], np.log1p(np.exp([-0.2, -0.2, 0.8])), rtol=1e-5)
    assert found["accuracy"].tolist() == [1, 1, 0]
    assert found["robust_accuracy"].tolist() == [1, 1, 0]
    assert not found["zero_gradient"].any()
    # H = p (1 - p) d d^T with d the difference of the columns, ||d||^2 = 5.
    p = 1 / (1 + np.exp(-0.5))
    np.testing.assert_allclose(found["eigenvalue"], 5 * p * (1 - p), rtol=1e-4)
    # delta = -+0.1 (1, -1, 0, 0)/..., d = (2, -1): |d . delta| / (||d|| ||delta||) over two pixels.
    assert (found["alignment"] > 0.6).all()
    total = found["gradient_term"] + found["curvature_term"] + found["model_error"]
    np.testing.assert_allclose(total, found["robust_loss"] - found["loss"], rtol=1e-4)
    # Scale-free: doubling all logits changes the loss but not the margin over their deviation.
    doubled = metric_fn(2 * W, {"image": X, "label": Y})
    np.testing.assert_allclose(doubled["robust_margin"], found["robust_margin"], rtol=1e-5)
    assert (doubled["robust_loss"] != found["robust_loss"]).all()


def test_images_with_zero_gradient_are_counted_if_they_are_correct():
    flat = from_apply(
        lambda w, x: jnp.round(x.reshape(len(x), -1) @ w), num_classes=2, piecewise_linear=True
    )
    metric_fn = robust_metrics(flat, seed=0, eps=0.1, step_size=0.1, num_steps=1)
    found = metric_fn(3 * W, {"image": X, "label": Y})
    assert found["accuracy"].tolist() == [1, 1, 0]
    assert found["zero_gradient"].tolist() == [1, 1, 0]


def test_margin_is_positive_where_the_answer_is_right():
    logits = jnp.array([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0]])
    assert margin(logits, jnp.array([1, 1])).tolist() == [1.0, -4.0]


@pytest.mark.slow(compiles=True)
def test_eight_devices_find_what_one_finds():
    network = from_linen(models.create("mlp", num_classes=10, hidden=(8,)), (4, 4, 1))
    ends = (network.init(jax.random.key(seed))["params"] for seed in (0, 1))
    line = Bezier.connect(*ends)
    images = np.asarray(jax.random.uniform(jax.random.key(2), (24, 4, 4, 1)))
    batches = stack_batches({"image": images, "label": np.arange(24) % 10}, 12)
    metric_fn = robust_metrics(network, seed=0, eps=0.1, step_size=0.03, num_steps=4)
    one, eight = (
        examples_along_path(
            metric_fn,
            lambda t: {"params": line(t)},
            np.linspace(0, 1, 9),
            batches,
            mesh=make_mesh(jax.devices()[:n]),
        )
        for n in (1, 8)
    )
    np.testing.assert_array_equal(one["robust_accuracy"], eight["robust_accuracy"])
    for name in ("robust_loss", "eigenvalue"):
        np.testing.assert_allclose(one[name], eight[name], rtol=1e-4)
        assert one[name].std() > 0


@pytest.fixture(scope="module")
def shared():
    """Two members that look at different pixels: each is blind to attacks on the other."""
    one = jnp.array([[4.0, 0.0], [0.0, 0.0], [-4.0, 0.0], [0.0, 0.0]])
    other = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 0.0], [-4.0, 0.0]])
    # Class 0 where the first pixel of a member is above its second.
    x = jnp.array([0.6, 0.6, 0.4, 0.4]).reshape(1, 2, 2, 1)
    batch = {"image": x, "label": jnp.array([0])}
    members = jnp.stack([one, other])
    return transfer(
        jax.random.key(0), LINEAR, members, batch, eps=0.15, step_size=0.15, num_steps=2
    )


def test_an_attack_on_one_member_does_not_carry_over(shared):
    matrix = np.asarray(shared["matrix"])
    assert matrix[0, 0] == 0
    assert matrix[1, 1] == 0


def test_the_ensemble_attacked_as_a_whole(shared):
    assert float(shared["ensemble_clean"]) == 1
    assert float(shared["ensemble_robust"]) == 0
    assert shared["ensemble_transfer"].shape == (2,)


@pytest.mark.slow(compiles=True)
def test_a_positive_factor_on_the_logits_changes_no_transfer():
    """Between members. The ensemble averages probabilities: with a factor it is another classifier."""
    x = jax.random.uniform(jax.random.key(0), (200, 2, 2, 1))
    members = jax.random.normal(jax.random.key(1), (3, 4, 2))
    y = (x.reshape(200, -1) @ members.mean(0)).argmax(1)
    found = [
        transfer(
            jax.random.key(0), LINEAR, factor * members, {"image": x, "label": y},
            eps=0.1, step_size=0.02, num_steps=10,
        )
        for factor in (1.0, 1e-3, 300.0, 1e4)
    ]  # fmt: skip
    for other in found[1:]:
        np.testing.assert_allclose(other["matrix"], found[0]["matrix"], atol=0.005)
    for each in found:
        assert each["ensemble_robust"] <= each["ensemble_transfer"].min()
