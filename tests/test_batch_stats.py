"""Recomputed BatchNorm statistics against numpy, and the endpoints' own at the ends."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.batch_stats import CurveWithStats, of_batch, recompute
from mcjax.curves import Bezier
from mcjax.models.batch_norm import BatchNorm
from mcjax.network import from_linen
from mcjax.path import evaluate_path
from mcjax.plane import through


class OneLayer(nn.Module):
    """BatchNorm of the images themselves, so that its statistics are theirs."""

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train=False):
        x = BatchNorm(momentum=self.momentum)(x, train)
        return x.mean((1, 2))


def images(n=13):
    return jax.random.uniform(jax.random.key(0), (n, 4, 5, 2))


def update_of(module, variables):
    def update_fn(stats, x):
        given = {**variables, "batch_stats": stats}
        return module.apply(given, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    return update_fn


@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
def test_statistics_of_a_batch_whatever_the_momentum(momentum):
    x = images()
    module = OneLayer(momentum)
    variables = module.init(jax.random.key(0), x)
    stats = of_batch(update_of(module, variables), variables["batch_stats"], x)["BatchNorm_0"]
    flat = np.asarray(x, np.float64).reshape(-1, 2)
    np.testing.assert_allclose(stats["mean"], flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], flat.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 13, 50])
def test_average_over_batches_with_a_smaller_last_one(batch_size):
    x = images()
    module = OneLayer()
    variables = module.init(jax.random.key(0), x)
    update_fn, like = update_of(module, variables), variables["batch_stats"]
    stats = recompute(update_fn, like, x, batch_size=batch_size)["BatchNorm_0"]
    parts = [np.asarray(x[i : i + batch_size], np.float64) for i in range(0, 13, batch_size)]
    weights = [len(p) / 13 for p in parts]
    mean = sum(w * p.reshape(-1, 2).mean(0) for w, p in zip(weights, parts, strict=True))
    var = sum(w * p.reshape(-1, 2).var(0, ddof=1) for w, p in zip(weights, parts, strict=True))
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-5)


def test_old_statistics_do_not_matter():
    x = images()
    module = OneLayer()
    variables = module.init(jax.random.key(0), x)
    other = jax.tree.map(lambda s: s + 7, variables["batch_stats"])
    a, b = (
        recompute(update_of(module, variables), s, x, batch_size=4)
        for s in (variables["batch_stats"], other)
    )
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def resnets():
    network = from_linen(models.create("resnet8", num_classes=3, width=4), (8, 8, 1))
    x = jax.random.uniform(jax.random.key(9), (10, 8, 8, 1))
    trained = []
    for seed in (0, 1):
        variables = network.init(jax.random.key(seed))
        # Statistics that differ from the initial ones, as training leaves them.
        _, stats = network.apply_train(jax.random.key(5), variables, x * (seed + 1))
        trained.append({"params": variables["params"], "batch_stats": stats})
    return network, trained, x


def curve_with(network, trained, images, **options):
    a, b = trained
    return CurveWithStats(
        Bezier.connect(a["params"], b["params"]),
        a["batch_stats"],
        b["batch_stats"],
        images,
        network.apply_train,
        **options,
    )


@pytest.mark.parametrize("which", ["images", "none"])
def test_the_ends_give_the_endpoints_own_logits(resnets, which):
    network, trained, x = resnets
    curve = curve_with(network, trained, x if which == "images" else None)
    for t, variables in ((0.0, trained[0]), (1.0, trained[1])):
        np.testing.assert_array_equal(
            network.apply(curve(jnp.float32(t)), x), network.apply(variables, x)
        )


def test_between_the_ends_they_are_recomputed_at_that_t(resnets):
    network, trained, x = resnets
    curve = curve_with(network, trained, x, batch_size=4)
    variables = curve(jnp.float32(0.5))

    def update_fn(stats, x):
        given = {"params": variables["params"], "batch_stats": stats}
        return network.apply_train(jax.random.key(0), given, x)[1]

    expected = recompute(update_fn, trained[0]["batch_stats"], x, batch_size=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), variables["batch_stats"], expected
    )


def test_none_interpolates_and_freed_ends_are_recomputed(resnets):
    network, trained, x = resnets
    middle = curve_with(network, trained, None)(jnp.float32(0.25))["batch_stats"]
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, *(v["batch_stats"] for v in trained))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), middle, expected)
    free = curve_with(network, trained, x, keep_ends=False)
    start = free(jnp.float32(0.0))["batch_stats"]
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_allclose, start, trained[0]["batch_stats"])


def test_on_eight_devices_and_over_a_plane(resnets):
    network, trained, x = resnets
    curve = curve_with(network, trained, x, batch_size=4)

    def metric_fn(variables, batch):
        return {"first": network.apply(variables, batch["image"])[:, 0]}

    ts = jnp.linspace(0, 1, 5)
    batch = {"image": x, "label": jnp.zeros(len(x), jnp.int32)}
    means = evaluate_path(metric_fn, curve, ts, batch)["first"]
    expected = [network.apply(jax.jit(curve)(t), x)[:, 0].mean() for t in ts]
    np.testing.assert_allclose(means, expected, rtol=1e-4, atol=1e-5)
    plane = CurveWithStats(
        through(curve.curve), curve.start_stats, curve.end_stats, x, network.apply_train
    )
    assert jnp.isfinite(evaluate_path(metric_fn, plane, jnp.zeros((2, 2)), batch)["first"]).all()
