"""TSC at the ends of its paths, where its answer is known, and its budget."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case
from slow import SLOW

from mcjax.core.tree import digest
from mcjax.repair.methods import tsc

X = jnp.asarray(tiny_case.images(4, 5)["image"], jnp.float32) / 255


def case(t, model="cnn", rounds=2, **changes):
    return tiny_case.case(model, 8, {"tsc.t": t, "tsc.num_rounds": rounds}, **changes)


def test_at_the_start_of_every_path_nothing_changes():
    one = case(0.0)
    assert digest(tsc.run(one)["params"]) == digest(one.suspect["params"])


@pytest.mark.parametrize(
    "changes", [{"width": 2}, pytest.param({"width": 2, "batch_norm": True}, marks=SLOW)]
)
def test_at_the_end_of_every_path_the_network_is_permuted_alone(changes):
    one = case(1.0, rounds=1, **changes)
    found = tsc.run(one)
    assert digest(found["params"]) != digest(one.suspect["params"])
    apply = one.network.apply
    np.testing.assert_allclose(apply(found, X), apply(one.suspect, X), rtol=1e-4, atol=1e-4)


def test_every_path_gets_its_share_of_the_steps():
    one, taken = case(0.4), []

    def fit(key, training):
        taken.append((training.part, training.budget.num_steps))
        return one.fit_fn(key, training)

    found = tsc.run(dataclasses.replace(one, fit_fn=fit))
    assert taken == [("away_0", 2), ("back_0", 2), ("away_1", 2), ("back_1", 2)]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
