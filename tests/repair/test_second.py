"""The other end of a suspect's path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.core.tree import digest
from mcjax.models.network import from_apply, from_linen
from mcjax.repair.second import second_network

KEY = jax.random.key(0)
NETWORK = from_linen(models.create("mlp", num_classes=3, hidden=(6,)), (4, 4, 1))
SUSPECT = {"batch_stats": {}, **NETWORK.init(jax.random.key(1))}
EXAMPLES = {"image": np.random.default_rng(0).uniform(size=(20, 4, 4, 1)).astype(np.float32)}
OPTIONS = {
    "align": "none", "end": "unaligned", "unalign": "weights",
    "teach_fn": lambda: "taught", "fine_tune_fn": lambda: "fine-tuned",
}  # fmt: skip


def end(given=None, network=NETWORK, suspect=SUSPECT, **changes):
    return second_network(KEY, network, suspect, given, EXAMPLES, **(OPTIONS | changes))


def test_a_free_end_begins_at_the_suspect_and_asks_for_nothing():
    def fine_tune():
        raise AssertionError("nothing is to be trained")

    found = end(end="free", fine_tune_fn=fine_tune, teach_fn=fine_tune)
    assert found.is_free
    assert not found.is_suspect
    assert found.variables is SUSPECT
    assert not end(SUSPECT, end="free").is_free  # a given network is not trained


def test_the_taught_suspect_is_an_end_that_is_no_suspect():
    found = end(end="taught")
    assert (found.variables, found.is_free, found.is_suspect) == ("taught", False, False)
    assert end(SUSPECT, end="taught").is_suspect  # a given network is


@pytest.mark.parametrize("unalign", ["weights", "activations", "random"])
def test_the_copy_is_the_same_function_with_other_weights(unalign):
    found = end(unalign=unalign)
    assert found.name == "the un-aligned copy of the suspect"
    x = jnp.asarray(EXAMPLES["image"])
    np.testing.assert_allclose(
        NETWORK.apply(found.variables, x), NETWORK.apply(SUSPECT, x), rtol=1e-4, atol=1e-5
    )
    assert digest(found.variables) != digest(SUSPECT)


def test_a_given_network_is_the_end_or_is_brought_into_the_suspects_order():
    copy = end(unalign="random").variables
    assert end(copy).name == "given"
    assert digest(end(copy).variables) == digest(copy)
    assert digest(end(copy, align="weights").variables) == digest(SUSPECT)


def test_a_fine_tuned_copy_where_it_is_asked_for_or_nothing_can_be_permuted():
    assert end(end="fine_tuned") == ("a fine-tuned copy of the suspect", "fine-tuned", False, True)
    linear = from_apply(lambda w, x: x.reshape(len(x), -1) @ w["params"], num_classes=3)
    suspect = {"params": jnp.ones((16, 3)), "batch_stats": {}}
    name, copy, *_ = end(network=linear, suspect=suspect)
    assert copy == "fine-tuned"
    assert name.startswith("a fine-tuned copy of the suspect, because this network has no channels")
