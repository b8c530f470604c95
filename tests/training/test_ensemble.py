"""Fast geometric ensembling, and the ensemble's answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.data import augmentation
from mcjax.models.network import from_apply
from mcjax.training.ensemble import (
    cyclic_schedule,
    fast_geometric_ensemble,
    log_mean_probabilities,
)
from mcjax.training.objectives import endpoint_loss

NETWORK = from_apply(lambda v, x: x.reshape(len(x), -1) @ v["params"])


def test_mean_of_probabilities_not_of_logits():
    members = jax.random.normal(jax.random.key(0), (3, 4, 2))
    x = jax.random.uniform(jax.random.key(1), (5, 4))
    expected = np.mean([jax.nn.softmax(x @ w) for w in members], axis=0)
    found = jnp.exp(log_mean_probabilities(lambda w, x: x @ w, members, x))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def ensemble(**changes):
    rng = np.random.default_rng(0)
    examples = {
        "image": jnp.asarray(rng.uniform(size=(40, 2, 2, 1)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 3, 40), jnp.int32),
    }
    settings = {"num_members": 3, "cycle": 4, "batch_size": 8, "weight_decay": 0.0, **changes}
    return fast_geometric_ensemble(
        jax.random.key(0),
        {"params": jnp.zeros((4, 3))},
        examples,
        loss_fn=endpoint_loss(NETWORK),
        augment_fn=augmentation.get("none"),
        **settings,
    )


def test_a_member_a_cycle_each_further_along_the_same_training():
    members = ensemble()
    assert len(members) == 3
    fewer = ensemble(num_members=2)
    for one, other in zip(members, fewer, strict=False):
        np.testing.assert_array_equal(one["params"], other["params"])
    assert not np.array_equal(members[0]["params"], members[1]["params"])


def test_first_member_by_hand():
    """Cycle 4 keeps the network after two steps, at rates (high + low) / 2 and low."""
    (member,) = ensemble(num_members=1, high=0.5, low=0.1, momentum=0.0, batch_size=40)
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(40, 4)).astype(np.float32)
    y = np.eye(3)[rng.integers(0, 3, 40)]
    w = np.zeros((4, 3))
    for rate in (0.3, 0.1):
        p = np.exp(x @ w) / np.exp(x @ w).sum(1, keepdims=True)
        w -= rate * x.T @ (p - y) / 40
    np.testing.assert_allclose(member["params"], w, rtol=1e-4, atol=1e-6)


def test_mistakes():
    with pytest.raises(UserError, match="cycle is 3"):
        cyclic_schedule(0.1, 0.01, 3)
    with pytest.raises(UserError, match="num_members is 0"):
        ensemble(num_members=0)
