"""Training steps against hand-worked ones and torch's rule, in one trace, cut anywhere."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import SLOW

from mcjax import cpu_convolution, models
from mcjax.core.sharding import make_mesh, replicate
from mcjax.curves import Bezier
from mcjax.data import augmentation
from mcjax.models.batch_norm import BatchNorm
from mcjax.models.network import from_linen
from mcjax.training import StepMetrics, init_state, schedule, sgd, train_steps
from mcjax.training import train as train_to_the_end
from mcjax.training.losses import cross_entropy, l2
from mcjax.training.objectives import curve_loss, endpoint_loss, sample_t, split_curve

NETWORK = from_linen(models.create("mlp", num_classes=3), (2, 2, 1))


def examples(n=20):
    return {
        "image": jax.random.uniform(jax.random.key(0), (n, 2, 2, 1)),
        "label": jnp.arange(n) % 3,
    }


def no_augmentation(key, image):
    return image


def quadratic(key, step, params, stats, fixed, batch):
    loss = (params["w"] ** 2).sum() / 2
    return loss, (stats, StepMetrics(loss, loss, loss))


def train(state, n, *, key=None, capacity=8, loss_fn=None, optimizer=None, fixed=None):
    return train_steps(
        jax.random.key(1) if key is None else key,
        jax.tree.map(jnp.copy, state),
        fixed,
        examples(),
        jnp.int32(n),
        capacity=capacity,
        loss_fn=loss_fn or endpoint_loss(NETWORK),
        optimizer=optimizer or sgd(0.1, 100, momentum=0.9),
        batch_size=6,
        augment_fn=no_augmentation,
    )


def test_schedule_equals_the_official_one():
    def official(alpha):
        if alpha <= 0.5:
            return 1.0
        return 1 - (alpha - 0.5) / 0.4 * 0.99 if alpha <= 0.9 else 0.01

    ours = schedule(0.3, 1000)
    for step in range(0, 1000, 37):
        np.testing.assert_allclose(ours(step), 0.3 * official(step / 1000), rtol=1e-5)


@pytest.mark.accelerator
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_by_hand(nesterov):
    """PyTorch's rule: g = w + wd w; v = mu v + g; w -= lr (g + mu v if nesterov else v)."""
    wd, mu, lr = 0.1, 0.9, 0.5
    optimizer = sgd(lr, 1000, momentum=mu, weight_decay=wd, nesterov=nesterov)
    state = init_state({"w": jnp.float32([2.0])}, {}, optimizer)
    state, history = train(state, 3, loss_fn=quadratic, optimizer=optimizer)
    w, v, losses = 2.0, 0.0, []
    for _ in range(3):
        losses.append(w**2 / 2)
        g = w + wd * w
        v = mu * v + g
        w -= lr * (g + mu * v if nesterov else v)
    np.testing.assert_allclose(state.params["w"], [w], rtol=1e-5)
    np.testing.assert_allclose(history.loss[:3], losses, rtol=1e-5)
    assert (history.loss[3:] == 0).all()
    assert state.step == 3


@pytest.mark.accelerator
@pytest.mark.parametrize("cuts", [[8], [1] * 8, [3, 5]])
def test_cut_anywhere_bit_for_bit(cuts):
    optimizer = sgd(0.1, 100, momentum=0.9)
    start = init_state(NETWORK.init(jax.random.key(0))["params"], {}, optimizer)
    whole, history = train(start, 8)
    state, losses = start, []
    for n in cuts:
        state, piece = train(state, n)
        losses += [float(v) for v in piece.loss[:n]]
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    np.testing.assert_array_equal(losses, history.loss)


def test_traced_once_whatever_the_number_of_steps_and_epochs():
    chex.clear_trace_counter()
    loss = endpoint_loss(NETWORK)
    loss_fn = chex.assert_max_traces(lambda *args: loss(*args), n=1)
    optimizer = sgd(0.1, 100, momentum=0.9)
    state = init_state(NETWORK.init(jax.random.key(0))["params"], {}, optimizer)
    for n in (8, 8, 3, 1):
        state, _ = train(state, n, loss_fn=loss_fn)


def test_the_loss_falls():
    optimizer = sgd(0.1, 100, momentum=0.9)
    state = init_state(NETWORK.init(jax.random.key(0))["params"], {}, optimizer)
    first, last = None, None
    for _ in range(12):
        state, history = train(state, 8)
        first = first or float(history.loss[0])
        last = float(history.loss.mean())
    assert last < 0.9 * first


def make_curve():
    a, b, c = (NETWORK.init(jax.random.key(i))["params"] for i in range(3))
    return Bezier(a, (c,), b)


@pytest.mark.accelerator
def test_curve_loss_is_the_formula_at_its_t():
    curve = make_curve()
    trained, fixed = split_curve(curve)
    key, step, batch = jax.random.key(3), jnp.int32(5), examples(6)
    loss_fn = curve_loss(NETWORK, Bezier, weight_decay=0.02)
    loss, (_, metrics) = loss_fn(key, step, trained, {}, fixed, batch)

    from mcjax.core.keys import stream

    t = sample_t(stream(key, "t"), step)
    w = curve(t)
    nll = cross_entropy(NETWORK.apply({"params": w}, batch["image"]), batch["label"]).mean()
    np.testing.assert_allclose(metrics.cross_entropy, nll, rtol=1e-6)
    np.testing.assert_allclose(loss, nll + 0.02 * l2(w), rtol=1e-6)
    squares = sum(float((np.asarray(v, np.float64) ** 2).sum()) for v in jax.tree.leaves(w))
    np.testing.assert_allclose(l2(w), squares / 2, rtol=1e-5)


@pytest.mark.parametrize("fix_start", [True, False])
def test_only_the_bends_train_unless_ends_are_freed(fix_start):
    curve = make_curve()
    trained, fixed = split_curve(curve, fix_start=fix_start)
    optimizer = sgd(0.1, 100, momentum=0.9)
    loss_fn = curve_loss(NETWORK, Bezier, weight_decay=0.0)
    state, _ = train(init_state(trained, {}, optimizer), 4, loss_fn=loss_fn, fixed=fixed)
    after = Bezier(**fixed, **state.params)

    def moved(name):
        before_leaves = jax.tree.leaves(getattr(curve, name))
        after_leaves = jax.tree.leaves(getattr(after, name))
        return any((a != b).any() for a, b in zip(before_leaves, after_leaves, strict=True))

    assert moved("bends")
    assert moved("start") == (not fix_start)
    assert not moved("end")


@pytest.mark.accelerator
def test_gradient_of_a_bend_is_its_coefficient_times_that_of_the_point():
    curve = make_curve()
    trained, fixed = split_curve(curve)
    key, step, batch = jax.random.key(3), jnp.int32(5), examples(6)
    loss_fn = curve_loss(NETWORK, Bezier, weight_decay=0.0)
    grads = jax.grad(lambda p: loss_fn(key, step, p, {}, fixed, batch)[0])(trained)

    from mcjax.core.keys import stream

    t = sample_t(stream(key, "t"), step)

    def at_point(w):
        return cross_entropy(NETWORK.apply({"params": w}, batch["image"]), batch["label"]).mean()

    expected = optax.tree.scale(2 * t * (1 - t), jax.grad(at_point)(curve(t)))
    chex.assert_trees_all_close(grads["bends"][0], expected, rtol=1e-4, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 5, 8]))
def test_stratified_t_visits_every_part_once(window, m):
    steps = jnp.arange(window * m, (window + 1) * m)
    ts = jax.vmap(lambda s: sample_t(jax.random.key(0), s, num_strata=m))(steps)
    assert sorted((ts * m).astype(int).tolist()) == list(range(m))


@pytest.mark.parametrize("m", [1, 4])
def test_t_is_uniform(m):
    from scipy.stats import kstest

    ts = jax.vmap(lambda s: sample_t(jax.random.key(0), s, num_strata=m))(jnp.arange(4000))
    assert kstest(np.asarray(ts), "uniform").pvalue > 0.01


class SmallConvNet(nn.Module):
    """What data parallelism could get wrong: BatchNorm over a part of the batch, dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.relu(BatchNorm()(x, train=train))
        x = nn.Dropout(0.2)(x, deterministic=not train)
        return nn.Dense(3)(x.reshape(len(x), -1))


def trained_over(mesh, *, loss_fn, params, stats, fixed=None):
    optimizer = sgd(0.1, 100, momentum=0.9)
    image = jax.random.uniform(jax.random.key(0), (40, 6, 6, 1))
    dispatches = train_to_the_end(
        jax.random.key(1),
        init_state(params, stats, optimizer),
        fixed,
        {"image": image, "label": jnp.arange(40) % 3},
        num_steps=5,
        steps_per_dispatch=3,
        loss_fn=loss_fn,
        optimizer=optimizer,
        batch_size=16,
        augment_fn=augmentation.get("flip_crop_2"),
        mesh=mesh,
    )
    *_, (state, metrics) = dispatches
    return state, metrics


@pytest.mark.parametrize(
    ("what", "fast_convolutions"), [pytest.param("endpoint", True, marks=SLOW), ("curve", False)]
)
def test_eight_devices_train_what_one_trains(what, fast_convolutions):
    """Weights, BatchNorm's running statistics and metrics after five steps, to rounding."""
    network = from_linen(SmallConvNet(), (6, 6, 1))
    a, b = (network.init(jax.random.key(i)) for i in range(2))
    given = {"params": a["params"], "stats": a["batch_stats"], "loss_fn": endpoint_loss(network)}
    if what == "curve":
        trained, fixed = split_curve(Bezier.connect(a["params"], b["params"]))
        loss_fn = curve_loss(network, Bezier, weight_decay=0.01)
        given |= {"params": trained, "fixed": fixed, "loss_fn": loss_fn}
    if fast_convolutions:
        cpu_convolution.enable()
    try:
        one, metrics_of_one = trained_over(None, **given)
        eight, metrics_of_eight = trained_over(make_mesh(axis="batch"), **given)
    finally:
        cpu_convolution.disable()
    assert all(len(v.sharding.device_set) == 8 for v in jax.tree.leaves(eight))
    chex.assert_trees_all_close(jax.device_get(eight), jax.device_get(one), rtol=1e-4, atol=1e-5)
    for name, value in metrics_of_one.items():
        np.testing.assert_allclose(metrics_of_eight[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.slow(compiles=True)
def test_each_of_eight_devices_does_an_eighth():
    network = from_linen(models.create("mlp", num_classes=3), (8, 8, 1))
    optimizer = sgd(0.1, 100, momentum=0.9)
    state = init_state(network.init(jax.random.key(0))["params"], {}, optimizer)
    image = jax.random.uniform(jax.random.key(0), (512, 8, 8, 1))

    def program(mesh):
        given = (jax.random.key(1), state, None, {"image": image, "label": jnp.arange(512) % 3})
        given = given if mesh is None else replicate(given, mesh)
        return train_steps.lower(
            *given,
            jnp.int32(1),
            capacity=1,
            loss_fn=endpoint_loss(network),
            optimizer=optimizer,
            batch_size=256,
            augment_fn=no_augmentation,
            mesh=mesh,
        ).compile()

    one, eight = program(None), program(make_mesh(axis="batch"))
    hidden = one.as_text().count("f32[256,")
    assert hidden
    assert "f32[32," in eight.as_text()
    assert "f32[256," not in eight.as_text()
    assert "all-reduce" in eight.as_text()
    assert "all-reduce" not in one.as_text()


@pytest.mark.slow(compiles=True)
@pytest.mark.accelerator
@pytest.mark.parametrize("own_images", [False, True])
def test_networks_side_by_side_become_what_each_becomes_alone(own_images):
    """Weights, running statistics and metrics of every step, to rounding; keys, starts and images differ."""
    network = from_linen(SmallConvNet(), (6, 6, 1))
    optimizer = sgd(0.1, 100, momentum=0.9, weight_decay=1e-3)
    given = {
        "num_steps": 5,
        "steps_per_dispatch": 3,
        "loss_fn": endpoint_loss(network),
        "optimizer": optimizer,
        "batch_size": 8,
        "augment_fn": augmentation.get("flip_crop_2"),
    }
    keys = [jax.random.key(i) for i in (1, 2, 3)]
    starts = [network.init(key) for key in keys]
    states = [init_state(v["params"], v["batch_stats"], optimizer) for v in starts]
    sets = [
        {
            "image": jax.random.uniform(jax.random.key(i if own_images else 0), (20, 6, 6, 1)),
            "label": jnp.arange(20) % 3,
        }
        for i in range(3)
    ]

    def stack(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    alone = [
        list(train_to_the_end(key, state, None, images, **given))[-1]
        for key, state, images in zip(keys, states, sets, strict=True)
    ]
    images = stack(sets) if own_images else sets[0]
    *_, (together, metrics) = train_to_the_end(
        jnp.stack(keys), stack(states), None, images, **given
    )
    for i, (state, means) in enumerate(alone):
        mine = jax.tree.map(lambda v, i=i: v[i], together)
        chex.assert_trees_all_close(mine, state, rtol=1e-4, atol=1e-5)
        for name, value in means.items():
            np.testing.assert_allclose(metrics[name][i], value, rtol=1e-5, err_msg=name)
