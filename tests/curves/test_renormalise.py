"""Renormalised points against numpy, the targets they must reach, and invariances."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from slow import SLOW

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.curves import Bezier
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.curves.renormalise import Renormalised, check, fold, hidden_layers, moments
from mcjax.evaluation.path import evaluate_path
from mcjax.models.layers import Dense, conv
from mcjax.models.network import from_apply, from_linen, in_bfloat16
from mcjax.training.losses import classification_metrics

IMAGES = jax.random.uniform(jax.random.key(9), (13, 4, 4, 1))
MLP = from_linen(models.create("mlp", num_classes=3, hidden=(5, 4)), (4, 4, 1))


class Residual(nn.Module):
    """A convolution without bias, a residual block, and layers whose names are not in call order."""

    @nn.compact
    def __call__(self, x, train=False):
        x = conv(4, 3, use_bias=False, name="z")(x)
        x = x + conv(4, 3, name="y")(nn.relu(x))
        x = nn.relu(x).mean((1, 2))
        x = nn.relu(Dense(6, name="b")(x))
        return Dense(3, name="a")(x)


RESIDUAL = from_linen(Residual(), (4, 4, 1))


def line(network):
    """A line between two random networks, with biases that are not zero."""
    ends = [network.init(jax.random.key(i)) for i in (0, 1)]
    shift = lambda w: w + np.cos(np.arange(w.size)).reshape(w.shape) / 10  # noqa: E731
    ends = [jax.tree.map(shift, variables) for variables in ends]
    return Bezier.connect(*ends)


def in_numpy(curve, t):
    """The parameters of an MLP's point in float64, corrected layer by layer."""
    x = np.asarray(IMAGES, np.float64).reshape(len(IMAGES), -1)

    def params(t):
        tree = jax.tree.map(lambda w: np.asarray(w, np.float64), curve(jnp.float32(t))["params"])
        return [[tree[f"fc{i}"]["kernel"], tree[f"fc{i}"]["bias"]] for i in (1, 2, 3)]

    def end_moments(layers):
        h, found = x, []
        for w, b in layers[:2]:
            z = h @ w + b
            found.append((z.mean(0), z.std(0)))
            h = np.maximum(z, 0)
        return found

    zero, one, layers, h = end_moments(params(0)), end_moments(params(1)), params(t), x
    for i in (0, 1):
        w, b = layers[i]
        z = h @ w + b
        mu_t, s_t = z.mean(0), z.std(0)
        mu, s = ((1 - t) * u + t * v for u, v in zip(zero[i], one[i], strict=True))
        layers[i] = [w * s / s_t, (b - mu_t) * s / s_t + mu]
        h = np.maximum(h @ layers[i][0] + layers[i][1], 0)
    return layers


@pytest.mark.parametrize("batch_size", [4, 13, 50])
def test_equals_numpy(batch_size):
    curve = line(MLP)
    found = Renormalised.of(MLP, curve, IMAGES, batch_size=batch_size)(0.3)["params"]
    for i, (w, b) in enumerate(in_numpy(curve, 0.3), start=1):
        np.testing.assert_allclose(found[f"fc{i}"]["kernel"], w, rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(found[f"fc{i}"]["bias"], b, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    "network", [MLP, pytest.param(RESIDUAL, marks=SLOW)], ids=["mlp", "residual"]
)
def test_the_ends_and_the_last_layer_are_unchanged(network):
    curve = line(network)
    corrected = Renormalised.of(network, curve, IMAGES, batch_size=5)
    for t in (0.0, 1.0):
        jax.tree.map(np.testing.assert_array_equal, corrected(t), curve(t))
    last = "fc3" if network is MLP else "a"
    jax.tree.map(
        np.testing.assert_array_equal, corrected(0.4)["params"][last], curve(0.4)["params"][last]
    )


@SLOW
def test_just_inside_the_ends_nothing_jumps():
    """The formula itself leaves the ends alone; they are not only put back."""
    curve = line(RESIDUAL)
    corrected = Renormalised.of(RESIDUAL, curve, IMAGES)
    for t in (1e-6, 1 - 1e-6):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), corrected(t), curve(t)
        )


def test_all_layers_reach_their_targets():
    curve, t = line(RESIDUAL), 0.4
    corrected = Renormalised.of(RESIDUAL, curve, IMAGES, batch_size=4)
    assert corrected.layers == ("z", "y", "b")
    own = moments(RESIDUAL.layer_outputs, corrected(t), IMAGES, corrected.layers, 50)
    without = moments(RESIDUAL.layer_outputs, curve(t), IMAGES, corrected.layers, 50)
    for name in corrected.layers:
        for i, quantity in enumerate(("mean", "deviation")):
            target = (1 - t) * corrected.start[name][i] + t * corrected.end[name][i]
            if (name, quantity) == ("z", "mean"):  # no bias: the mean is scaled with the deviation
                target = without[name][0] * own[name][1] / without[name][1]
            np.testing.assert_allclose(own[name][i], target, rtol=1e-3, atol=1e-5)
    assert not np.allclose(without["y"][1], own["y"][1], rtol=1e-2)


def test_scale_and_shift_of_a_points_channels_do_not_matter():
    """Whatever the point's own means and deviations are, the corrected network is the same."""
    curve, t = line(MLP), 0.3
    factor, shift = jnp.array([0.1, 2.0, 5.0, 1.0, 0.7]), jnp.array([3.0, -1.0, 0.0, 0.5, 2.0])

    def other(t):
        point = curve(t)
        fc1 = point["params"]["fc1"]
        inside = (t > 0) & (t < 1)
        a, b = jnp.where(inside, factor, 1), jnp.where(inside, shift, 0)
        changed = {"kernel": fc1["kernel"] * a[None], "bias": fc1["bias"] * a + b}
        return {"params": {**point["params"], "fc1": changed}}

    x = IMAGES[:3]
    logits = [MLP.apply(Renormalised.of(MLP, c, IMAGES)(jnp.float32(t)), x) for c in (curve, other)]
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)


def test_a_permutation_of_channels_is_followed():
    curve, order = line(MLP), jnp.array([3, 0, 4, 1, 2])

    def permuted(t):
        params = curve(t)["params"]
        fc1 = {"kernel": params["fc1"]["kernel"][:, order], "bias": params["fc1"]["bias"][order]}
        fc2 = {**params["fc2"], "kernel": params["fc2"]["kernel"][order]}
        return {"params": {**params, "fc1": fc1, "fc2": fc2}}

    a, b = (Renormalised.of(MLP, c, IMAGES)(jnp.float32(0.3)) for c in (curve, permuted))
    np.testing.assert_allclose(MLP.apply(a, IMAGES), MLP.apply(b, IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("where", ["point", "ends", "everywhere"])
def test_constant_channels_are_shifted_and_give_no_nan(where):
    plain = line(MLP)

    def curve(t):
        at_end = (t == 0) | (t == 1)
        dead = {"point": ~at_end, "ends": at_end, "everywhere": True}[where]
        params = plain(t)["params"]
        kernel = params["fc1"]["kernel"]
        kernel = kernel.at[:, 0].multiply(jnp.where(dead, 0, 1))
        return {"params": {**params, "fc1": {**params["fc1"], "kernel": kernel}}}

    corrected = Renormalised.of(MLP, curve, IMAGES)
    point = corrected(jnp.float32(0.5))
    assert all(np.isfinite(w).all() for w in jax.tree.leaves(point))
    mean, deviation = moments(MLP.layer_outputs, point, IMAGES, ("fc1",), 50)["fc1"]
    middle = (corrected.start["fc1"][0] + corrected.end["fc1"][0]) / 2
    np.testing.assert_allclose(mean, middle, rtol=1e-3, atol=1e-5)
    assert deviation[0] < 1e-6


def test_a_large_mean_costs_no_precision():
    """The mean of squares minus the squared mean would lose a deviation of 1e-3 at 100."""
    outputs = lambda variables, x: {"fc": 100 + 1e-3 * x[:, 0, 0]}  # noqa: E731
    x = jax.random.normal(jax.random.key(0), (1000, 1, 1, 2))
    mean, deviation = moments(outputs, {}, x, ("fc",), 64)["fc"]
    expected = np.asarray(outputs({}, x)["fc"], np.float64)
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, expected.std(0), rtol=1e-2)


@pytest.mark.slow(compiles=True)
def test_jit_and_evaluate_path_equal_a_loop():
    curve = line(RESIDUAL)
    params = Bezier.connect(curve.start["params"], curve.end["params"])
    points = CurveWithStats(params, {}, {}, None, RESIDUAL.apply_train)
    corrected = Renormalised.of(RESIDUAL, points, IMAGES, batch_size=6)
    ts = np.linspace(0, 1, 5)
    batch = {"image": IMAGES, "label": jnp.arange(13) % 3}
    metric_fn = classification_metrics(RESIDUAL.apply)
    loop = [metric_fn(corrected(jnp.float32(t)), batch)["loss"].mean() for t in ts]
    for chunk in (1, 2):
        means = evaluate_path(metric_fn, corrected, ts, batch, chunk=chunk)
        np.testing.assert_allclose(means["loss"], np.stack(loop), rtol=1e-4)
    mapped = jax.jit(lambda c: lax.map(c, jnp.float32(ts)))(corrected)
    jax.tree.map(
        lambda m, one: np.testing.assert_allclose(m[2], one, rtol=1e-4, atol=1e-6),
        mapped,
        corrected(jnp.float32(ts[2])),
    )


def test_uint8_images_are_fractions_of_255():
    curve, pixels = line(MLP), jnp.round(IMAGES * 255).astype(jnp.uint8)
    a = Renormalised.of(MLP, curve, pixels)(0.5)
    b = Renormalised.of(MLP, curve, pixels.astype(jnp.float32) / 255)(0.5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (
            from_linen(models.create("cnn", num_classes=3, width=2), (4, 4, 1)),
            "conv1 conv2 conv3 fc1",
        ),
        (in_bfloat16(RESIDUAL), "z y b"),
    ],
)
def test_forward_order_is_found_by_tracing(network, layers):
    variables = jax.eval_shape(network.init, jax.random.key(0))
    assert hidden_layers(network.layer_outputs, variables, IMAGES[:1]) == tuple(layers.split())


def test_fold_by_hand():
    params = {"fc": {"kernel": jnp.array([[2.0, 1.0]]), "bias": jnp.array([1.0, 0.0])}}
    own, target = (
        (jnp.array([3.0, 0.0]), jnp.array([4.0, 0.0])),
        (jnp.array([5.0, 7.0]), jnp.ones(2)),
    )
    found = fold(params, "fc", own, target)["fc"]
    assert found["kernel"].tolist() == [[0.5, 1.0]]
    assert found["bias"].tolist() == [4.5, 7.0]  # (1 - 3) / 4 + 5; a constant channel moves


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (from_linen(models.create("cnn", num_classes=3, batch_norm=True), (4, 4, 1)), "BatchNorm"),
        (from_apply(lambda v, x: x), "no layer_outputs"),
    ],
)
def test_networks_that_are_refused(network, message):
    with pytest.raises(UserError, match=message):
        check(network)
    with pytest.raises(UserError, match=message):
        Renormalised.of(network, lambda t: {}, IMAGES)


def test_no_images():
    with pytest.raises(UserError, match="no images"):
        Renormalised.of(MLP, line(MLP), IMAGES[:0])
