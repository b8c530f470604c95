"""A look along a path: several quantities in one pass, and robust accuracy by each attack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.evaluation.look import Quantity, along, robust
from mcjax.evaluation.path import evaluate_path
from mcjax.models.network import from_apply

LINEAR = from_apply(lambda w, x: (x.reshape(len(x), -1) - 0.5) @ w, num_classes=2)
W = jax.random.normal(jax.random.key(0), (12, 2))
EPS = 0.05


def images(n):
    x = 0.5 + 0.1 * np.asarray(jax.random.normal(jax.random.key(1), (n, 2, 2, 3)).clip(-2, 2))
    return {"image": x, "label": np.asarray(LINEAR.apply(W, jnp.asarray(x)).argmax(1))}


def total(w, batch):
    return {"total": w.sum() * batch["image"].sum((1, 2, 3))}


def number(w, batch):
    return {"number": jnp.full(len(batch["label"]), w[0, 0])}


def test_the_point_is_computed_once_per_t_for_all_quantities():
    traces = []

    def curve(t):
        traces.append(t)
        return t * W

    ones, twos = images(5), images(4)
    quantities = [
        Quantity(total, ones, 2), Quantity(number, twos), Quantity(total, twos, prefix="other_")
    ]  # fmt: skip
    told = []
    ts = np.array([0.0, 0.5, 1.0])
    found = along(quantities, curve, ts, lambda points, values: told.append((points, values)))
    assert len(traces) == 1  # one program, in which the point is there once
    expected = ts * float(W.sum())
    np.testing.assert_allclose(
        found["total"], expected * ones["image"].sum((1, 2, 3)).mean(), rtol=1e-4
    )
    np.testing.assert_allclose(
        found["other_total"], expected * twos["image"].sum((1, 2, 3)).mean(), rtol=1e-4
    )
    np.testing.assert_allclose(found["number"], ts * float(W[0, 0]), rtol=1e-6)
    assert sum(points for points, _ in told) == 3
    assert told[-1][1]["number"] == pytest.approx(float(W[0, 0]))


def test_functions_and_sets_of_other_names_are_refused():
    batches = {"a": {k: v[None] for k, v in images(4).items()}}
    with pytest.raises(ValueError, match="names b, but the sets of batches are a; give one"):
        evaluate_path({"b": total}, lambda t: t * W, [0.5], batches)
    with pytest.raises(ValueError, match="are not named"):
        evaluate_path({"b": total}, lambda t: t * W, [0.5], images(4))


def gaps(batch):
    """Distance of every image to the decision boundary in l_inf."""
    w = np.asarray(W, np.float64)
    z, y = (batch["image"].reshape(len(batch["label"]), -1) - 0.5) @ w, batch["label"]
    return np.array(
        [min((z[j, k] - z[j, c]) / np.abs(w[:, k] - w[:, c]).sum() for c in range(2) if c != k)
         for j, k in enumerate(y)]
    )  # fmt: skip


@pytest.mark.parametrize(
    "attack", ["pgd", "apgd", pytest.param("autoattack", marks=pytest.mark.slow(compiles=True))]
)
def test_robust_is_what_is_farther_than_eps(attack):
    batch = images(30)
    options = {"num_queries": 20} if attack == "autoattack" else {}
    metric_fn = robust(LINEAR, seed=0, eps=EPS, attack=attack, num_steps=10, **options)
    found = jax.jit(metric_fn)(W, {k: jnp.asarray(v) for k, v in batch.items()})
    sure = np.abs(gaps(batch) - EPS) > 2e-3
    np.testing.assert_array_equal(found["robust_accuracy"][sure], (gaps(batch) > EPS)[sure])
    assert not found["zero_gradient"].any()
    assert ("robust_loss" in found) == (attack != "autoattack")


def test_an_unknown_attack():
    with pytest.raises(UserError, match="unknown attack 'cw'; use one of pgd, apgd, autoattack"):
        robust(LINEAR, seed=0, eps=EPS, attack="cw")
