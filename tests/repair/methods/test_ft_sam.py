"""FT-SAM: a step against its formula on a quadratic, and rho = 0 against fine-tuning."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case
from slow import SLOW

from mcjax.repair.methods import ft_sam
from mcjax.repair.methods.ft_sam import sharpness_aware
from mcjax.training import StepMetrics
from mcjax.training.fit import Budget, Training, fit
from mcjax.training.objectives import endpoint_loss

A = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 3.0]])


def quadratic(key, step, params, stats, fixed, batch):
    """w' A w / 2 of a tree of two leaves; the statistics count the passes that are kept."""
    w = jnp.concatenate([params["a"], params["b"]])
    loss = w @ jnp.asarray(A, w.dtype) @ w / 2
    return loss, ({"passes": stats["passes"] + 1}, StepMetrics(loss, loss, loss))


def test_a_step_on_a_quadratic():
    w = np.array([1.0, -2.0, 0.5])
    rho, rate = 0.4, 0.1
    params = {"a": jnp.asarray(w[:2], jnp.float32), "b": jnp.asarray(w[2:], jnp.float32)}
    images = {"image": jnp.zeros((4, 1, 1, 1)), "label": jnp.zeros(4, jnp.int32)}
    training = Training(
        params,
        {"passes": jnp.zeros(())},
        images,
        sharpness_aware(quadratic, rho=rho),
        rate,
        Budget(1, batch_size=4, weight_decay=0.02),
    )
    found = fit(jax.random.key(0), training)
    g = A @ w
    e = rho * w**2 * g / np.linalg.norm(np.abs(w) * g)
    expected = w - rate * (A @ (w + e) + 0.02 * w)  # the weight decay is that of w
    result = np.concatenate([found["params"]["a"], found["params"]["b"]])
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert float(found["batch_stats"]["passes"]) == 1  # of the pass at w alone


@pytest.mark.parametrize(
    ("batch_norm", "num_steps"), [pytest.param(False, 3, marks=SLOW), (True, 1)]
)
def test_without_a_radius_every_step_is_one_of_fine_tuning(batch_norm, num_steps):
    """In float64 they are equal bit by bit; in several steps BatchNorm amplifies float32's rounding."""
    case = tiny_case.case(
        num_steps=2 * num_steps, options={"ft_sam.rho": 0.0}, width=2, batch_norm=batch_norm
    )
    found = ft_sam.run(case)
    half = dataclasses.replace(case.budget, num_steps=num_steps)
    start, loss_fn = case.suspect, endpoint_loss(case.network)
    tuned = case.train("ft_sam", start["params"], start["batch_stats"], loss_fn, budget=half)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), found, tuned)


def test_equal_losses_are_one_program():
    assert sharpness_aware(quadratic, rho=1.0) == sharpness_aware(quadratic, rho=1.0)
    assert sharpness_aware(quadratic, rho=1.0) != sharpness_aware(quadratic, rho=2.0)
