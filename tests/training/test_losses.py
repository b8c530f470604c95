"""Losses and metrics refuse labels that broadcasting would take as something else."""

import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.training.losses import accuracy, cross_entropy

LOGITS = jnp.float32(np.random.default_rng(0).normal(size=(10, 4)))
Y = jnp.arange(10) % 4


@pytest.mark.accelerator
def test_values_against_plain_definitions():
    z = np.float64(LOGITS)
    expected = np.log(np.exp(z).sum(1)) - z[np.arange(10), Y]
    np.testing.assert_allclose(cross_entropy(LOGITS, Y), expected, rtol=1e-5)
    np.testing.assert_array_equal(accuracy(LOGITS, Y), z.argmax(1) == np.asarray(Y))


@pytest.mark.parametrize("fn", [accuracy, cross_entropy])
@pytest.mark.parametrize("y", [Y[:, None], Y[:5], Y.astype(jnp.float32), Y[None], Y[0]])
def test_labels_of_another_shape_or_type_are_refused(fn, y):
    with pytest.raises(UserError, match=r"labels are .*; give integers of shape \[10\]"):
        fn(LOGITS, y)
