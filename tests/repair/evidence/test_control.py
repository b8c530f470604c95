"""The control forgets a planted backdoor, and is used only if it knows its task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.models.given import as_network
from mcjax.models.network import from_linen
from mcjax.repair.evidence.control import control_training, usable
from mcjax.training.fit import Budget, Training, fit
from mcjax.training.objectives import endpoint_loss

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)


def images(seed, stamped=0):
    """Noise, with the label's pixel white; the last `stamped` have a white corner and label 0."""
    rng = np.random.default_rng(seed)
    label = np.arange(256) % 3
    image = (0.5 * rng.random((256, *SHAPE))).astype(np.float32)
    image[:, 3, 3] = 0
    image[np.arange(256), 0, label] = 1
    if stamped:
        image[-stamped:, 3, 3], label[-stamped:] = 1, 0
    return {"image": image, "label": label.astype(np.int32)}


def success(network, variables):
    """How often a white corner makes images of other classes a 0."""
    clean = images(2)
    x = jnp.asarray(clean["image"][clean["label"] != 0]).at[:, 3, 3].set(1)
    return float((network.apply(variables, x).argmax(-1) == 0).mean())


def test_it_forgets_the_backdoor_and_keeps_the_task():
    network = from_linen(models.create("mlp", num_classes=3, hidden=(32,)), SHAPE)
    start, loss_fn = network.init(KEY)["params"], endpoint_loss(network)
    poisoned = jax.tree.map(jnp.asarray, images(0, stamped=60))
    budget = Budget(num_steps=300, batch_size=32)
    suspect = fit(KEY, Training(start, {}, poisoned, loss_fn, 0.05, budget))
    clean = images(1)
    on_device = jax.tree.map(jnp.asarray, clean)
    control = fit(KEY, control_training(KEY, network, suspect, on_device, num_steps=1000))
    assert success(network, suspect) > 0.9
    assert success(network, control) < 0.3
    accuracy = (network.apply(control, on_device["image"]).argmax(-1) == clean["label"]).mean()
    assert accuracy > 0.95
    assert usable(network, control, suspect, clean)


@pytest.mark.parametrize(("share", "expected"), [(0.6, True), (0.4, False)])
def test_a_control_needs_half_of_the_suspects_accuracy(share, expected):
    """Networks that know the answer to as many of the images as they are told."""
    network, _ = as_network(
        lambda n, x: jnp.eye(2)[(x[:, 0, 0, 0] < n).astype(int)], jnp.float32(1)
    )
    image = (np.arange(10) + 0.5).reshape(10, 1, 1, 1).astype(np.float32) / 10
    clean = {"image": image, "label": np.ones(10, np.int32)}
    control, suspect = ({"params": jnp.float32(n), "batch_stats": {}} for n in (share, 1))
    assert usable(network, control, suspect, clean) == expected


def test_there_is_none_for_a_network_whose_last_layer_is_not_known():
    pair = {"a": jnp.eye(3), "b": jnp.eye(3)}
    network, suspect = as_network(lambda v, x: x.reshape(len(x), -1)[:, :3] @ v["a"] @ v["b"], pair)
    on_device = jax.tree.map(jnp.asarray, tiny_case.images(6, 0))
    with pytest.raises(UserError, match="a, b could be it"):
        control_training(KEY, network, suspect, on_device, num_steps=5)
