"""I-BAU: its hypergradient against dense linear algebra, and a backdoor that it takes out."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import Diverged, UserError
from mcjax.models.network import from_apply
from mcjax.repair.methods import i_bau
from mcjax.repair.methods.i_bau import hypergradient, project, unlearn


def quadratic(seed=0, n=5, m=3):
    """Inner: maximise -delta' A delta / 2 + delta' B w; outer: |delta - c|^2 / 2 + |w|^2."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    a, b = root @ root.T / n + np.eye(n), rng.normal(size=(n, m))
    return a, b, rng.normal(size=n), rng.normal(size=m)


def test_hypergradient_is_the_dense_one():
    """delta* = A^-1 B w, so the gradient is 2 w + B' A^-1 (delta* - c)."""
    with jax.enable_x64(True):
        a, b, c, w = map(jnp.asarray, quadratic())
        delta = jnp.linalg.solve(a, b @ w)
        gradient = hypergradient(
            lambda delta, w: ((delta - c) ** 2).sum() / 2 + (w**2).sum(),
            lambda delta, w: delta + 0.2 * (b @ w - a @ delta),
            delta,
            w,
            num_terms=300,
        )
        dense = 2 * w + b.T @ jnp.linalg.solve(a, delta - c)
        np.testing.assert_allclose(gradient, dense, rtol=1e-10)


@pytest.mark.parametrize("num_terms", [0, 1, 4])
def test_a_cut_series_is_the_cut_series(num_terms):
    with jax.enable_x64(True):
        a, b, c, w = map(jnp.asarray, quadratic(1))
        delta = jnp.ones(5)
        gradient = hypergradient(
            lambda delta, w: ((delta - c) ** 2).sum() / 2 + (w**2).sum(),
            lambda delta, w: delta + 0.2 * (b @ w - a @ delta),
            delta,
            w,
            num_terms=num_terms,
        )
        j = np.eye(5) - 0.2 * a
        v = sum((np.linalg.matrix_power(j, k) @ (1 - c) for k in range(num_terms)), np.zeros(5))
        np.testing.assert_allclose(gradient, 2 * w + 0.2 * b.T @ v, rtol=1e-10)


def test_hypergradient_on_the_sphere_is_the_finite_difference():
    """The projected step: a convex loss has its maximum on the border, and moves along it."""
    with jax.enable_x64(True):
        a, b, c, w = map(jnp.asarray, quadratic(2))
        a = a / 10  # the loss itself is convex in delta: only the ball bounds it

        def map_fn(delta, w):
            return project(delta + 0.5 * (a @ delta + 3 * b @ w), 1.5)

        def outer_fn(delta, w):
            return ((delta - c) ** 2).sum() / 2 + (w**2).sum()

        def solved(w):
            return jax.lax.fori_loop(0, 500, lambda _, delta: map_fn(delta, w), jnp.ones(5))

        delta = solved(w)
        assert abs(float(jnp.linalg.norm(delta)) - 1.5) < 1e-9
        gradient = hypergradient(outer_fn, map_fn, delta, w, num_terms=300)
        h = 1e-5 * np.eye(3)
        slopes = [
            (outer_fn(solved(w + e), w + e) - outer_fn(solved(w - e), w - e)) / 2e-5 for e in h
        ]
        np.testing.assert_allclose(gradient, slopes, rtol=1e-6)


def test_parameters_may_be_a_tree():
    gradient = hypergradient(
        lambda delta, w: (delta * w["a"]).sum(),
        lambda delta, w: 0.5 * delta + w["b"],
        jnp.array([2.0, 4.0]),
        {"a": jnp.array([3.0, 5.0]), "b": jnp.array([1.0, 2.0])},
        num_terms=40,
    )
    np.testing.assert_allclose(gradient["a"], [2.0, 4.0], rtol=1e-5)
    np.testing.assert_allclose(gradient["b"], [6.0, 10.0], rtol=1e-5)


def test_projection():
    np.testing.assert_allclose(project(jnp.array([0.3, 0.4]), 1.0), [0.3, 0.4])
    np.testing.assert_allclose(project(jnp.array([[3.0, 4.0]]), 2.0), [[1.2, 1.6]], rtol=1e-6)
    np.testing.assert_array_equal(jax.jacobian(project)(jnp.zeros(2), 1.0), np.eye(2))


def mlp(variables, x):
    w = variables["params"]
    h = jax.nn.relu(x.reshape(len(x), -1) @ w["hidden"] + w["bias"][None])
    return h @ w["out"]


def backdoored(seed=0, n=96):
    """Brightness of pixel 0 tells the class; a hidden unit that sees the last one says 1."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    image = 0.1 * rng.random((n, 16))
    image[:, 0] = np.where(label == 1, 0.9, 0.1) + 0.05 * rng.normal(size=n)
    hidden = np.zeros((16, 3), np.float32)
    hidden[0, 0], hidden[0, 1], hidden[15, 2] = 8, -8, 20
    bias = np.float32([-4, 4, -1])
    out = np.float32([[-0.4, 0.4], [1, -1], [-0.5, 0.5]])  # class 1 has use for the last unit
    variables = {"params": jax.tree.map(jnp.asarray, {"hidden": hidden, "bias": bias, "out": out})}
    data = {"image": image.reshape(n, 4, 4, 1).astype(np.float32), "label": label}
    return variables, jax.tree.map(jnp.asarray, data)


def success(variables, data):
    """How many of class 0 are taken for class 1 once the last pixel is white."""
    x = data["image"][data["label"] == 0].at[:, -1, -1].set(1.0)
    return float((mlp(variables, x).argmax(-1) == 1).mean())


OPTIONS = {"num_rounds": 8, "eps": 0.8, "learning_rate": 0.05, "batch_size": 32}


def test_a_backdoor_goes_and_accuracy_stays():
    variables, data = backdoored()
    assert success(variables, data) == 1.0
    clean = unlearn(jax.random.key(0), from_apply(mlp), variables, data, **OPTIONS)
    assert success(clean, data) < 0.1
    assert float((mlp(clean, data["image"]).argmax(-1) == data["label"]).mean()) > 0.95
    # It is the perturbation that does it: the same steps on clean images alone do not.
    tuned = unlearn(jax.random.key(0), from_apply(mlp), variables, data, **OPTIONS, perturbed=0.0)
    assert success(tuned, data) > 0.9


def test_a_sure_network_does_not_stall_the_ascent():
    """With logits a hundred times as large the loss underflows on every image."""
    variables, data = backdoored()
    sure = {"params": {**variables["params"], "out": 100 * variables["params"]["out"]}}
    assert float(jnp.abs(jnp.diff(mlp(sure, data["image"]))).min()) > 104
    clean = unlearn(jax.random.key(0), from_apply(mlp), sure, data, **OPTIONS)
    # The weight that sees the trigger falls; nothing moves where no perturbation is found.
    assert clean["params"]["hidden"][15, 2] < sure["params"]["hidden"][15, 2] - 0.1


def test_same_key_same_network_and_what_is_not_trained_is_kept():
    variables, data = backdoored()
    variables = {**variables, "batch_stats": {"mean": jnp.arange(3.0)}}
    options = {**OPTIONS, "num_rounds": 2}
    a, b, c = (
        unlearn(jax.random.key(k), from_apply(mlp), variables, data, **options) for k in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (a["params"]["hidden"] != c["params"]["hidden"]).any()
    np.testing.assert_array_equal(a["batch_stats"]["mean"], np.arange(3.0))
    assert jax.tree.structure(a) == jax.tree.structure(variables)


def test_a_batch_may_be_larger_than_the_data():
    variables, data = backdoored(n=4)
    network = from_apply(mlp)
    options = {**OPTIONS, "num_rounds": 1, "batch_size": 16}
    clean = unlearn(jax.random.key(0), network, variables, data, **options)
    assert all(np.isfinite(w).all() for w in jax.tree.leaves(clean))


@pytest.mark.parametrize(
    "bad", [{"eps": 0.0}, {"num_rounds": 0}, {"perturbed": 1.5}, {"learning_rate": -1.0}]
)
def test_mistakes(bad):
    variables, data = backdoored()
    with pytest.raises(UserError, match=next(iter(bad))):
        unlearn(jax.random.key(0), from_apply(mlp), variables, data, **bad)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0])
def test_a_network_that_is_not_finite_is_no_repair(value, monkeypatch):
    found = {"params": {"w": jnp.array([1.0, value])}, "batch_stats": {}}
    monkeypatch.setattr(i_bau, "unlearn", lambda *args, **options: found)
    case = SimpleNamespace(key_fn=lambda name: None, network=None, suspect=None, images=None)
    case = SimpleNamespace(**vars(case), options={}, budget=SimpleNamespace(batch_size=1))
    if np.isfinite(value):
        assert i_bau.run(case) is found
        return
    with pytest.raises(Diverged, match="lower its learning rate"):
        i_bau.run(case)
