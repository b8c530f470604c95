"""The channels that go are those that are dead by construction, and then the least active."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.data.batches import stack_batches
from mcjax.models.network import from_apply, from_linen
from mcjax.repair.methods import pruning
from mcjax.repair.methods.fine_pruning import mean_activation, prune_dormant


class Channels(nn.Module):
    """Logit c is the mean of channel c, and channels 2 and 3 say nothing."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (1, 1), name="conv")(x))
        return nn.Dense(2, name="fc")(x.mean((1, 2)))


def channels(bias):
    params = {
        "conv": {
            "kernel": jnp.array([1.0, -1.0, 0.0, 0.0]).reshape(1, 1, 1, 4),
            "bias": jnp.array(bias),
        },
        "fc": {"kernel": jnp.eye(4, 2), "bias": jnp.zeros(2)},
    }
    return from_linen(Channels(), (2, 2, 1)), {"params": params}


def bright_and_dark(n=20):
    """Class 0 is bright, class 1 dark: channel 0 is x, channel 1 is 1 - x."""
    label = np.arange(n) % 2
    image = np.where(label == 0, 0.9, 0.2).astype(np.float32).reshape(n, 1, 1, 1)
    return {"image": np.broadcast_to(image, (n, 2, 2, 1)).copy(), "label": label}


def kept(masks, layer="conv"):
    return np.asarray(masks[layer]["bias"]).astype(bool).tolist()


def test_dead_and_mute_channels_go_and_the_others_stay():
    network, variables = channels([0.0, 1.0, -1.0, 0.01])
    masks = prune_dormant(network, variables, bright_and_dark(), bright_and_dark(), tolerance=0.0)
    assert kept(masks) == [True, True, False, False]
    np.testing.assert_array_equal(masks["conv"]["kernel"].ravel(), [1, 1, 0, 0])
    np.testing.assert_array_equal(masks["fc"]["kernel"], np.ones((4, 2)))


def test_stops_at_the_first_channel_that_costs_too_much():
    """The order is that of activity: a busy channel protects itself, and whatever is busier."""
    network, variables = channels([0.0, 1.0, -1.0, 0.7])  # 3, of no use, is the most active
    data = bright_and_dark()
    masks = prune_dormant(network, variables, data, data, tolerance=0.1)
    assert kept(masks) == [True, True, False, True]
    # Without channel 1 (mean 0.45) every dark image has logits (0.2, 0): half are wrong.
    masks = prune_dormant(network, variables, data, data, tolerance=0.5)
    assert kept(masks) == [False, False, False, True]


def test_a_tolerance_that_is_just_met():
    network, variables = channels([0.0, 1.0, -1.0, -1.0])
    data = bright_and_dark(10)
    at, below = (prune_dormant(network, variables, data, data, tolerance=t) for t in (0.5, 0.49))
    assert sum(kept(at)) == 1
    assert sum(kept(below)) == 2


def test_several_channels_a_step_end_at_a_multiple():
    network, variables = channels([0.0, 1.0, -1.0, 0.7])
    data = bright_and_dark()
    masks = prune_dormant(network, variables, data, data, tolerance=0.0, step=2)
    assert kept(masks) == [True] * 4  # two at once would take channel 1


def test_activity_is_the_mean_over_images_and_places():
    network, variables = channels([-0.3, 1.0, -1.0, 0.25])
    data = bright_and_dark(7)  # four bright, three dark
    found = mean_activation(variables, stack_batches(data, 4), network=network, layer="conv")
    expected = [4 * 0.6 / 7, (4 * 0.1 + 3 * 0.8) / 7, 0, 0.25]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "layer"),
    [
        ("cnn", {"width": 2, "hidden": 4}, "conv3"),
        pytest.param("resnet8", {"width": 2}, "bn", marks=SLOW),
        pytest.param("wide_resnet", {"depth": 10, "width": 1}, "bn1", marks=SLOW),
        ("mlp", {"hidden": (5, 6)}, "fc2"),
    ],
)
def test_which_layer_is_pruned_and_that_a_dead_channel_is_found(model, options, layer):
    network = from_linen(models.create(model, num_classes=3, **options), (8, 8, 1))
    like = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda w: np.float32(0.1 + np.abs(rng.normal(size=w.shape))), like)
    dead = variables["params"][layer]["bias"].shape[0] - 1
    for name, w in variables["params"][layer].items():
        w[..., dead] = -1.0 if name == "bias" else 0.0
    images = rng.random((12, 8, 8, 1), np.float32)
    apply = jax.jit(network.apply)
    data = {"image": images, "label": np.asarray(apply(variables, images).argmax(-1))}
    masks = prune_dormant(network, variables, data, data, tolerance=0.0, batch_size=5)
    assert not kept(masks, layer)[dead]
    touched = [name for name, m in masks.items() if any((v == 0).any() for v in jax.tree.leaves(m))]
    assert touched == [layer]
    pruned = {**variables, "params": pruning.apply_masks(variables["params"], masks)}
    np.testing.assert_array_equal(apply(pruned, images).argmax(-1), data["label"])


@pytest.mark.parametrize("model", ["resnet", "preactresnet"])
def test_without_a_normalisation_behind_the_last_block_the_classifier_forgets(model):
    """In the block the shortcut would bring a channel back; the least active go first."""
    options = {"blocks": (1, 1), "width": 4}
    network = from_linen(models.create(model, num_classes=3, **options), (8, 8, 1))
    rng = np.random.default_rng(1)
    like = jax.eval_shape(network.init, jax.random.key(0))
    variables = jax.tree.map(
        lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32) * 0.5, like
    )
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    images = rng.random((12, 8, 8, 1), np.float32)
    data = {"image": images, "label": np.arange(12) % 3}
    masks = prune_dormant(network, variables, data, data, tolerance=1.0)
    head = {"resnet": "fc", "preactresnet": "linear"}[model]
    touched = [name for name, m in masks.items() if any((v == 0).any() for v in jax.tree.leaves(m))]
    assert touched == [head]
    rows = np.asarray(masks[head]["kernel"])
    features = jax.nn.relu(jax.jit(network.layer_outputs)(variables, images)["layer2_0"])
    most_active = int(features.mean((0, 1, 2)).argmax())
    assert rows.sum(1).tolist() == [3.0 * (c == most_active) for c in range(8)]
    np.testing.assert_array_equal(masks[head]["bias"], np.ones(3))


def test_mistakes():
    data = bright_and_dark()
    with pytest.raises(UserError, match="make it with from_linen"):
        prune_dormant(from_apply(lambda w, x: x), {"params": {}}, data, data)
    network = from_linen(models.create("mlp", num_classes=2, hidden=()), (2, 2, 1))
    variables = network.init(jax.random.key(0))
    with pytest.raises(UserError, match="no hidden layer"):
        prune_dormant(network, variables, data, data)
