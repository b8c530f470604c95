"""The similarity of input gradients, against gradients written out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.attacks.poisoning import triggers
from mcjax.experiments.repair_study.explain import gradient_similarity


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_cosine_of_two_gradients():
    """For logits x W the gradient is W (softmax(x W) - onehot(y))."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(16, 3))
    x = rng.uniform(size=(5, 4, 4, 1)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1])
    stamp = triggers.create("square", (4, 4, 1), size=2)

    def gradient(x):
        logits = x.reshape(5, 16) @ w
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return (p - np.eye(3)[y]) @ w.T

    metric_fn = gradient_similarity(lambda v, x: x.reshape(len(x), -1) @ v, stamp)
    batch = {"image": jnp.asarray(x), "label": jnp.asarray(y)}
    found = metric_fn(jnp.asarray(w, jnp.float32), batch)["cosine"]
    np.testing.assert_allclose(found, cosine(gradient(x), gradient(stamp(x))), atol=1e-5)


@pytest.mark.parametrize("factor", [60.0, 1000.0])
def test_tiny_gradients_keep_their_direction(factor):
    """A sure network's gradients underflow in float32: their squares, or they themselves."""
    stamp = triggers.create("pixel", (2, 2, 1), row=0, column=0)  # where the image is white anyway
    metric_fn = gradient_similarity(lambda v, x: x.reshape(len(x), -1) @ v, stamp)
    v = jnp.eye(4) * factor
    x = jnp.zeros((1, 2, 2, 1)).at[0, 0, 0, 0].set(1)
    value = metric_fn(v, {"image": x, "label": jnp.array([0])})["cosine"]
    assert abs(float(value[0]) - 1) < 1e-6
