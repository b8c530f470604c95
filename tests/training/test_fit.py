"""A training as a value, against the loop written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import digest
from mcjax.data.batches import epoch_indices
from mcjax.models.network import from_apply
from mcjax.training.fit import Budget, Training, fit
from mcjax.training.loop import schedule
from mcjax.training.objectives import endpoint_loss

KEY = jax.random.key(0)
NETWORK = from_apply(lambda v, x: x.reshape(len(x), -1) @ v["params"])
LOSS = endpoint_loss(NETWORK)
IMAGES = {
    "image": jax.random.uniform(KEY, (12, 2, 2, 1)),
    "label": jnp.arange(12) % 3,
}


def training(**changes):
    budget = Budget(num_steps=10, batch_size=4, weight_decay=0.1)
    options = {"learning_rate": 0.3, "budget": budget} | changes
    return Training(jnp.ones((4, 3)), {}, IMAGES, LOSS, **options)


@pytest.mark.parametrize(("decay_in_loss", "nesterov"), [(False, False), (True, True)])
def test_the_steps_of_sgd_written_out(decay_in_loss, nesterov):
    w, velocity = np.ones((4, 3)), np.zeros((4, 3))
    order = epoch_indices(
        stream(KEY, "shuffle"), first_step=0, num_steps=10, batch_size=4, num_examples=12
    )
    budget = Budget(num_steps=10, batch_size=4, weight_decay=0.1, nesterov=nesterov)
    one = training(decay_in_loss=decay_in_loss, budget=budget)
    for step in range(10):
        x = np.asarray(IMAGES["image"])[order[step]].reshape(4, 4)
        y = np.asarray(IMAGES["label"])[order[step]]
        p = np.asarray(jax.nn.softmax(x @ w))
        gradient = x.T @ (p - np.eye(3)[y]) / 4 + (0.0 if decay_in_loss else 0.1) * w
        velocity = 0.9 * velocity + gradient
        direction = gradient + 0.9 * velocity if nesterov else velocity
        w = w - float(schedule(0.3, 10)(step)) * direction
    found = fit(KEY, one, steps_per_dispatch=3)["params"]
    np.testing.assert_allclose(found, w, rtol=1e-4, atol=1e-5)


def test_dispatches_do_not_change_the_numbers_and_are_told():
    told = []
    ten = fit(KEY, training(), steps_per_dispatch=4, tell=lambda step, means: told.append(step))
    assert told == [4, 8, 10]
    assert digest(ten) == digest(fit(KEY, training(), steps_per_dispatch=10))


def test_stacked_networks_have_a_state_each():
    one = Training(jnp.ones((2, 4, 3)), {}, IMAGES, LOSS, 0.3, Budget(5), stacked=True)
    assert one.state().step.shape == (2,)
    momentum = optax.tree.get(one.state().opt_state, "trace")
    assert momentum.shape == (2, 4, 3)


def test_a_loss_that_is_not_finite_names_training_step_and_rate():
    one = training(learning_rate=1e30)
    with pytest.raises(UserError, match=r"path: the loss became \S+ by step \d+; lower the"):
        fit(KEY, one, name="path", steps_per_dispatch=2)
