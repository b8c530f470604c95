"""The joint loss of classifier and generator, term by term, and what training does to the triggers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

from mcjax.attacks.poisoning import triggers
from mcjax.attacks.poisoning.input_aware import diversity
from mcjax.core.keys import stream
from mcjax.models.network import from_apply
from mcjax.training.fit import Budget
from mcjax.training.generator_objective import JointTraining, generator_loss

SHAPE = (4, 4, 1)
NETWORK = from_apply(lambda v, x: x.reshape(len(x), -1) @ v["params"])


def setting(weight=1.0):
    trigger = triggers.create("input_aware", SHAPE, width=4, strength=0.3, diversity=weight)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.random((6, *SHAPE), np.float32)),
        "label": jnp.array([1, 1, 0, 2, 0, 2]),
        "poisoned": jnp.arange(6) < 2,
        "cover": (jnp.arange(6) >= 2) & (jnp.arange(6) < 4),
    }
    params = {
        "network": jnp.asarray(rng.normal(size=(16, 3)).astype(np.float32)),
        "generator": jax.tree.map(lambda w: w + 0.02, trigger.params),  # not the trigger's own
    }
    return trigger, batch, params


def value(trigger, batch, params, step=3):
    loss_fn = generator_loss(NETWORK, trigger)
    return loss_fn(jax.random.key(0), step, params, {}, None, batch)


def test_the_loss_is_cross_entropy_on_stamped_images_plus_diversity():
    trigger, batch, params = setting(weight=0.5)
    loss, (_, metrics) = value(trigger, batch, params)
    key, x = jax.random.key(0), batch["image"]
    live = trigger.with_params(params["generator"])
    image = np.array(x)
    image[:2] = live(x)[:2]
    image[2:4] = live.decoy(stream(key, "decoys", 3), x)[2:4]
    logits = image.reshape(6, 16) @ np.asarray(params["network"])
    rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    nll = -rows[np.arange(6), np.asarray(batch["label"])].mean()
    np.testing.assert_allclose(metrics.cross_entropy, nll, rtol=1e-4)
    apart = diversity(stream(key, "diversity", 3), x, live.pattern(x))
    np.testing.assert_allclose(loss, nll + 0.5 * apart, rtol=1e-4)


@pytest.mark.parametrize("marked", [pytest.param("poisoned", marks=SLOW), "cover"])
def test_the_generator_learns_from_poisoned_and_from_cover_images(marked):
    trigger, batch, params = setting(weight=0.0)

    def gradient(batch):
        found = jax.grad(lambda p: value(trigger, batch, p)[0])(params)["generator"]
        return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(found))

    none = {**batch, "poisoned": jnp.zeros(6, bool), "cover": jnp.zeros(6, bool)}
    assert gradient(none) == 0
    assert gradient({**none, marked: batch[marked]}) > 1e-4


def test_the_network_is_trained_by_sgd_and_the_generator_by_adam():
    params = {"network": jnp.array([2.0, -1.0]), "generator": jnp.array([1.0, 1.0, 1.0])}
    grads = {"network": jnp.array([0.5, 3.0]), "generator": jnp.array([1e-3, -7.0, 0.0])}
    budget = Budget(num_steps=10, weight_decay=0.1)
    training = JointTraining(params, {}, {}, None, 0.05, budget, generator_learning_rate=0.01)
    updates, _ = training.optimizer.update(grads, training.state().opt_state, params)
    np.testing.assert_allclose(updates["network"], [-0.05 * 0.7, -0.05 * 2.9], rtol=1e-5)
    np.testing.assert_allclose(updates["generator"], [-0.01, 0.01, 0.0], rtol=1e-3)
    same = dataclasses.replace(training, params={**params})
    assert same.optimizer is training.optimizer


def test_one_program_per_trigger():
    a, b = (setting()[0] for _ in range(2))
    assert generator_loss(NETWORK, a) == generator_loss(NETWORK, b)
