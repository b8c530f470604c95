"""ANP: a step of noise and masks against NumPy, and what pruning does to a channel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case
from slow import SLOW

from mcjax.core.keys import stream
from mcjax.core.tree import by_name, digest
from mcjax.models.network import from_apply
from mcjax.repair.methods import anp
from mcjax.training.fit import Budget, Training, fit

KEY = jax.random.key(3)
ALPHA, EPS, RATE = 0.2, 0.4, 0.3


def two_channels(variables, x):
    """Logit c is channel c of a 1x1 convolution."""
    w = variables["params"]["conv"]
    return x.reshape(-1, 1) @ w["kernel"].reshape(1, 2) + w["bias"][None]


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def by_hand(x, y, k, c, d, b, m):
    """Gradients of the loss with noise: of d, of b and of m, in NumPy."""
    z = x[:, None] * (k * (m + d))[None] + (c * (1 + b))[None]
    residual = (softmax(z) - np.eye(2)[y]) / len(x)
    of_weight = (residual * x[:, None] * k).sum(0)
    return of_weight, (residual * c).sum(0)


def test_a_step_by_hand():
    rng = np.random.default_rng(0)
    x, y = rng.random(6), np.arange(6) % 2
    k, c, m = np.array([1.5, -2.0]), np.array([0.3, 0.7]), np.array([0.9, 0.6])
    params = {"conv": {"kernel": jnp.asarray(k.reshape(1, 1, 1, 2)), "bias": jnp.asarray(c)}}
    mask = {"conv": jnp.asarray(m, jnp.float32)}
    images = {
        "image": jnp.asarray(x.reshape(6, 1, 1, 1), jnp.float32),
        "label": jnp.asarray(y, jnp.int32),
    }
    training = Training(
        mask,
        {},
        images,
        anp.mask_loss(from_apply(two_channels), alpha=ALPHA, eps=EPS),
        RATE,
        Budget(1, batch_size=6, weight_decay=0.0),
        fixed=jax.tree.map(jnp.float32, params),
        project_fn=anp.clip_masks,
    )
    found = fit(KEY, training)["params"]["conv"]

    start = anp.start_noise(stream(KEY, "noise", 0), mask, eps=EPS)
    d, b = (np.asarray(tree["conv"], np.float64) for tree in start)
    assert np.abs([d, b]).max() <= EPS
    up_d, up_b = by_hand(x, y, k, c, d, b, m)
    d = np.clip(d + EPS * np.sign(up_d), -EPS, EPS)
    b = np.clip(b + EPS * np.sign(up_b), -EPS, EPS)
    clean, _ = by_hand(x, y, k, c, 0, np.zeros(2), m)
    noisy, _ = by_hand(x, y, k, c, d, b, m)
    expected = np.clip(m - RATE * (ALPHA * clean + (1 - ALPHA) * noisy), 0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(found, m, atol=1e-3)


@pytest.mark.parametrize(
    "options", [{"width": 2}, pytest.param({"width": 2, "batch_norm": True}, marks=SLOW)]
)
def test_masks_stay_in_their_interval_and_zero_prunes_nothing(options):
    rates = {"learning_rate.anp": 30.0}
    case = tiny_case.case(num_steps=9, options=rates, **options)
    family = anp.run(case)
    masks = family.networks.scores
    layer = "bn" if "batch_norm" in options else "conv"
    assert set(masks) == {f"{layer}{i}" for i in (1, 2, 3)}
    values = np.concatenate(list(masks.values()))
    assert values.min() == 0.0  # so large a rate leaves the interval, and is clipped
    assert values.max() <= 1.0
    assert (family.setting, family.values[0], family.values[-1]) == ("threshold", 0.0, 0.9)
    assert digest(family.networks(0)) == digest(case.suspect)
    strongest = by_name(family.networks(len(family.values) - 1)["params"])
    for name, mask in masks.items():
        weight = strongest[f"{name}/{'scale' if layer == 'bn' else 'kernel'}"]
        gone = np.abs(weight).reshape(-1, len(mask)).max(0) == 0
        np.testing.assert_array_equal(gone, np.asarray(mask) < np.float32(0.9))


@pytest.mark.parametrize(
    ("model", "options", "layers"),
    [
        ("cnn", {"width": 2}, ["conv1", "conv2", "conv3"]),
        ("cnn", {"width": 2, "batch_norm": True}, ["bn1", "bn2", "bn3"]),
        pytest.param("resnet8", {"width": 2}, None, marks=SLOW),
    ],
)
def test_pruned_channels_output_zero(model, options, layers):
    case = tiny_case.case(model, **options)
    found = anp.masked_layers(case.suspect["params"])
    if layers is None:  # every BatchNorm: two in each block, and the last
        layers = [f"layer{i}_0/bn{j}" for i in (1, 2, 3) for j in (1, 2)] + ["bn"]
    assert sorted(found) == sorted(layers)
    # No parameter and no statistic is zero by itself.
    variables = jax.tree.map(lambda w: w + 0.1, case.suspect)
    masks = {layer: jnp.arange(n) % 2 / 1.0 for layer, n in found.items()}
    networks = anp.PrunedBelow(variables, masks, np.float32([0.0, 0.5]))
    outputs = case.network.layer_outputs(networks(1), jnp.full((2, 8, 8, 1), 0.3))
    for layer in layers:
        output = np.asarray(outputs[layer])
        assert (output[..., ::2] == 0).all()
        assert (output[..., 1::2] != 0).any()


def test_noise_is_new_at_every_step():
    mask = {"a": jnp.ones(3), "b": jnp.ones(3)}
    draws = [anp.start_noise(stream(KEY, "noise", i), mask, eps=1.0) for i in (0, 1)]
    rows = [np.asarray(tree[name]) for pair in draws for tree in pair for name in "ab"]
    assert len({row.tobytes() for row in rows}) == 8
