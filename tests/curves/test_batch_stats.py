"""Recomputed BatchNorm statistics against numpy, and the endpoints' own at the ends."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import all_but

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.curves import Bezier
from mcjax.curves.batch_stats import CurveWithStats, of_batch, of_network, recompute
from mcjax.curves.plane import through
from mcjax.evaluation.path import evaluate_path
from mcjax.models.batch_norm import BatchNorm
from mcjax.models.network import from_linen


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


@pytest.mark.accelerator
@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
def test_statistics_of_a_batch_whatever_the_momentum(momentum):
    x = images()
    module = OneLayer(momentum)
    variables = module.init(jax.random.key(0), x)
    stats = of_batch(update_of(module, variables), variables["batch_stats"], x)["BatchNorm_0"]
    flat = np.asarray(x, np.float64).reshape(-1, 2)
    np.testing.assert_allclose(stats["mean"], flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], flat.var(0, ddof=1), rtol=1e-5)


def test_a_momentum_of_one_freezes_a_layer():
    x = images()
    module = OneLayer(1.0)
    variables = module.init(jax.random.key(0), x)
    like = jax.tree.map(lambda s: s + 7, variables["batch_stats"])
    stats = recompute(update_of(module, variables), like, x, batch_size=4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), stats, like)


@pytest.mark.accelerator
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


class Mixed(nn.Module):
    """A frozen BatchNorm before one that training updates, inside wrappers that networks use."""

    wrapper: str = "none"
    frozen: bool = True

    @nn.compact
    def __call__(self, x, train=False):
        class Layers(nn.Module):
            frozen: bool

            @nn.compact
            def __call__(self, x, train):
                x = nn.Dense(3)(x)
                x = nn.BatchNorm(use_running_average=self.frozen or not train, name="frozen")(x)
                return nn.BatchNorm(use_running_average=not train, momentum=0.7, name="live")(x**2)

        if self.wrapper == "scan":
            Many = nn.scan(
                lambda layers, x, _: (layers(x, train), None),
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                length=2,
            )
            return Many(Layers(self.frozen), nn.Dense(3)(x), None)[0].mean((1, 2))
        made = {
            "none": Layers,
            "jit": nn.jit(Layers, static_argnums=2),
            "remat": nn.remat(Layers, static_argnums=2),
        }
        return made[self.wrapper](self.frozen)(x, train).mean((1, 2))


@pytest.mark.parametrize("wrapper", all_but(["jit"], ["none", "jit", "remat"]))
def test_frozen_statistics_are_interpolated_and_the_layers_behind_them_see_them(wrapper):
    x = images()
    network = from_linen(Mixed(wrapper), (4, 5, 2))
    ends = [network.init(jax.random.key(i)) for i in (0, 1)]
    (where,) = ends[0]["batch_stats"]
    for v, mean in zip(ends, (1.0, 3.0), strict=True):
        v["batch_stats"][where]["frozen"] = {"mean": jnp.full(3, mean), "var": jnp.full(3, mean)}
    variables = curve_with(network, ends, x, batch_size=13)(jnp.float32(0.25))
    stats = variables["batch_stats"][where]
    np.testing.assert_allclose(stats["frozen"]["mean"], 1.5)
    np.testing.assert_allclose(stats["frozen"]["var"], 1.5)
    dense = variables["params"][where]["Dense_0"]
    norm = variables["params"][where]["frozen"]
    h = np.float64(x) @ np.float64(dense["kernel"]) + np.float64(dense["bias"])
    h = (
        ((h - 1.5) / np.sqrt(1.5 + 1e-5)) * np.float64(norm["scale"]) + np.float64(norm["bias"])
    ) ** 2
    np.testing.assert_allclose(stats["live"]["mean"], h.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(stats["live"]["var"], h.var((0, 1, 2)), rtol=1e-4)
    for t, v in enumerate(ends):
        np.testing.assert_array_equal(
            network.apply(curve_with(network, ends, x)(jnp.float32(t)), x), network.apply(v, x)
        )


def test_layers_in_a_scan_are_recomputed():
    x = images()
    network = from_linen(Mixed("scan", frozen=False), (4, 5, 2))
    a = network.init(jax.random.key(0))
    # A curve from a network to itself: at every point its own statistics of these images.
    stats = curve_with(network, [a, a], x, batch_size=13)(jnp.float32(0.5))["batch_stats"]
    old = {**a, "batch_stats": jax.tree.map(jnp.zeros_like, a["batch_stats"])}
    new = network.apply_train(jax.random.key(0), old, x)[1]
    for layer in ("frozen", "live"):
        share = {"frozen": 0.01, "live": 0.3}[layer]  # one minus the momentum
        np.testing.assert_allclose(
            stats["Layers_0"][layer]["mean"], new["Layers_0"][layer]["mean"] / share, rtol=1e-4
        )


class Spectral(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.SpectralNorm(nn.Dense(3))(x.reshape(len(x), -1), update_stats=train)


class Maximum(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        largest = self.variable("batch_stats", "largest", jnp.zeros, ())
        if train:
            largest.value = jnp.maximum(largest.value, x.max())
        return nn.Dense(3)(x.mean((1, 2))) / (1 + largest.value)


class Counter(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        seen = self.variable("batch_stats", "seen", lambda: jnp.int32(0))
        if train:
            seen.value = seen.value + len(x)
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.mark.parametrize(
    ("module", "name"), [(Spectral(), "sigma"), (Maximum(), "largest"), (Counter(), "seen")]
)
def test_what_is_no_running_mean_is_refused(module, name):
    x = images()
    network = from_linen(module, (4, 5, 2))
    ends = [network.init(jax.random.key(i)) for i in (0, 1)]
    with pytest.raises(UserError, match=rf"{name}, which is not a running mean"):
        curve_with(network, ends, x)(jnp.float32(0.5))


class Other(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        scale = self.variable("constants", "scale", jnp.ones, ())
        self.sow("losses", "size", x.mean())
        return x.mean((1, 2)) * scale.value


def test_collections_that_a_path_cannot_carry_are_refused():
    with pytest.raises(UserError, match=r"needs the collections constants.*mcjax supports params"):
        from_linen(Other(), (4, 5, 2))


@pytest.fixture(scope="module")
def networks():
    network = from_linen(
        models.create("cnn", num_classes=3, width=2, hidden=4, batch_norm=True), (8, 8, 1)
    )
    x = jax.random.uniform(jax.random.key(9), (10, 8, 8, 1))
    train, trained = jax.jit(network.apply_train), []
    for seed in (0, 1):
        variables = network.init(jax.random.key(seed))
        # Statistics that differ from the initial ones, as training leaves them.
        _, stats = train(jax.random.key(5), variables, x * (seed + 1))
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
def test_the_ends_give_the_endpoints_own_logits(networks, which):
    network, trained, x = networks
    curve = curve_with(network, trained, x if which == "images" else None)
    at, apply = jax.jit(curve), jax.jit(network.apply)
    for t, variables in ((0.0, trained[0]), (1.0, trained[1])):
        np.testing.assert_array_equal(apply(at(jnp.float32(t)), x), apply(variables, x))


@pytest.mark.accelerator
def test_between_the_ends_they_are_recomputed_at_that_t(networks):
    network, trained, x = networks
    curve = curve_with(network, trained, x, batch_size=4)
    variables = jax.jit(curve)(jnp.float32(0.5))

    @jax.jit
    def update_fn(stats, x):
        given = {"params": variables["params"], "batch_stats": stats}
        return network.apply_train(jax.random.key(0), given, x)[1]

    expected = recompute(update_fn, trained[0]["batch_stats"], x, batch_size=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), variables["batch_stats"], expected
    )


@pytest.mark.parametrize("number", [5, 130])
def test_of_a_network_in_batches_of_128(networks, number):
    network, (variables, _), x = networks
    x = jnp.tile(x, (-(-number // len(x)), 1, 1, 1))[:number]
    stats = of_network(network.apply_train, variables, x)

    def update_fn(stats, x):
        given = {**variables, "batch_stats": stats}
        return network.apply_train(jax.random.key(0), given, x)[1]

    expected = recompute(update_fn, variables["batch_stats"], x, batch_size=128)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stats, expected)


def test_none_interpolates_and_freed_ends_are_recomputed(networks):
    network, trained, x = networks
    middle = jax.jit(curve_with(network, trained, None))(jnp.float32(0.25))["batch_stats"]
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, *(v["batch_stats"] for v in trained))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), middle, expected)
    free = curve_with(network, trained, x, keep_ends=False)
    start = jax.jit(free)(jnp.float32(0.0))["batch_stats"]
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_allclose, start, trained[0]["batch_stats"])


def test_an_end_that_was_trained_with_the_curve_is_recomputed_alone(networks):
    network, trained, x = networks
    one = dataclasses.replace(curve_with(network, trained, x), end_stats=None)
    both = curve_with(network, trained, x, keep_ends=False)
    start, end = (jax.jit(one)(jnp.float32(t))["batch_stats"] for t in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, start, trained[0]["batch_stats"])
    recomputed = jax.jit(both)(jnp.float32(1))["batch_stats"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), end, recomputed)


@pytest.mark.slow(compiles=True)
def test_on_eight_devices_and_over_a_plane(networks):
    network, trained, x = networks
    curve = curve_with(network, trained, x, batch_size=4)

    def metric_fn(variables, batch):
        return {"first": network.apply(variables, batch["image"])[:, 0]}

    ts = jnp.linspace(0, 1, 5)
    batch = {"image": x, "label": jnp.zeros(len(x), jnp.int32)}
    means = evaluate_path(metric_fn, curve, ts, batch)["first"]
    at = jax.jit(lambda t: network.apply(curve(t), x)[:, 0].mean())
    expected = [at(t) for t in ts]
    np.testing.assert_allclose(means, expected, rtol=1e-4, atol=1e-5)
    plane = CurveWithStats(
        through(curve.curve), curve.start_stats, curve.end_stats, x, network.apply_train
    )
    assert jnp.isfinite(evaluate_path(metric_fn, plane, jnp.zeros((2, 2)), batch)["first"]).all()


def test_in_a_notebook_a_curve_with_statistics_is_one_short_line():
    stats = {"mean": jnp.zeros(2)}
    line = Bezier.connect({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, num_bends=0)
    for images_, end in ((None, "interpolated)"), (images(3), "from 3 images)")):
        text = repr(CurveWithStats(line, stats, stats, images_, lambda *_: None))
        assert text == f"CurveWithStats(Bezier(straight line, 2 parameters), BatchNorm {end}"
    assert repr(CurveWithStats(line, {}, {}, None, lambda *_: None)) == f"CurveWithStats({line})"
